/* SPDX-License-Identifier: LGPL-2.1-or-later */
/*
 * The only file that knows ncurses.  Signals set a flag; whoever waits looks at it, gives the
 * terminal back and lets the signal do what it does.  ncurses itself cares for SIGWINCH and
 * SIGTSTP.
 */
#include "ctl/top.h"

#include <curses.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <unistd.h>

#include "ctl/table.h"

#define HELP                                                                                       \
        "q quit  < > column to sort by  b bytes  o operations  r read  w written  R reverse  u "   \
        "units  Space now"

static volatile sig_atomic_t ended_by; /* the signal, 0: none */
static SCREEN *screen;
static guint scrolled; /* the first row that is seen */

static void on_signal(int number)
{
        ended_by = number;
}

/* Without SA_RESTART, so that a wait ends. */
static void catch_signals(void)
{
        static const int numbers[] = {SIGHUP, SIGINT, SIGQUIT, SIGTERM};
        struct sigaction action = {.sa_handler = on_signal};

        for (size_t i = 0; i < G_N_ELEMENTS(numbers); i++)
                sigaction(numbers[i], &action, NULL);
}

bool top_screen_open(void)
{
        catch_signals(); /* before ncurses, which leaves alone what is not at its default */
        screen = newterm(NULL, stdout, stdin);
        if (!screen) {
                ctl_complain("top: this terminal is not known (TERM=%s); there is --batch",
                             g_getenv("TERM") ? g_getenv("TERM") : "");
                return false;
        }
        set_escdelay(25);
        cbreak();
        noecho();
        nonl();
        nodelay(stdscr, TRUE);
        keypad(stdscr, TRUE);
        curs_set(0);
        return true;
}

void top_screen_close(void)
{
        if (!screen)
                return;
        endwin();
        delscreen(screen);
        screen = NULL;
}

int top_screen_signal(void)
{
        return ended_by;
}

/* One line, cut where the terminal ends. */
static void draw_line(int y, const char *text, attr_t attributes)
{
        if (y >= LINES)
                return;
        attrset(attributes);
        mvaddnstr(y, 0, text, (int)table_fit(text, (unsigned)MAX(COLS, 1)));
        /* so that a reversed line is one from side to side */
        for (int x = getcurx(stdscr); attributes && getcury(stdscr) == y && x < COLS; x++)
                mvaddch(y, x, ' ');
        attrset(A_NORMAL);
}

void top_screen_draw(const struct top *top, const GPtrArray *messages)
{
        g_autoptr(GString) line = g_string_new(NULL);
        g_autoptr(K42Table) table = NULL;
        int y = 0, room;

        erase();
        top_append_title(top, line);
        draw_line(y++, line->str, A_BOLD);
        for (guint i = 0; i < messages->len; i++)
                draw_line(y++, messages->pdata[i], A_NORMAL);

        room = MAX(LINES - y - 2, 0); /* headings above, help below */
        scrolled = MIN(scrolled, top->shown->len > 0 ? top->shown->len - 1 : 0);
        table = top_table(top, scrolled, (guint)room);
        if (!top->options.rows.no_headings) {
                g_string_truncate(line, 0);
                table_append_headings(table, line);
                draw_line(y++, line->str, A_REVERSE);
        }
        for (unsigned i = 0; i < table_rows(table); i++) {
                g_string_truncate(line, 0);
                table_append_row(table, i, line);
                draw_line(y++, line->str, A_NORMAL);
        }
        move(LINES - 1, 0);
        clrtoeol();
        draw_line(LINES - 1, HELP, A_DIM);
        refresh();
}

static void scroll_by(int lines)
{
        scrolled = lines < 0 && scrolled < (guint)-lines ? 0 : scrolled + (guint)lines;
}

static enum top_command sort_by(struct top *top, enum column_id id)
{
        top->sort = &columns[id];
        top_sort(top);
        return TOP_DRAW;
}

static enum top_command do_key(struct top *top, int key)
{
        switch (key) {
        case 'q':
        case 'Q':
                return TOP_QUIT;
        case '<':
        case KEY_LEFT:
                top_sort_by_next(top, -1);
                break;
        case '>':
        case KEY_RIGHT:
                top_sort_by_next(top, 1);
                break;
        case 'R':
                top->reverse = !top->reverse;
                top_sort(top);
                break;
        case 'b':
                return sort_by(top, COLUMN_RATE);
        case 'o':
                return sort_by(top, COLUMN_OP_RATE);
        case 'r':
                return sort_by(top, COLUMN_READ_RATE);
        case 'w':
                return sort_by(top, COLUMN_WRITE_RATE);
        case 'u':
                top->readable = !top->readable;
                break;
        case KEY_UP:
        case KEY_DOWN:
                scroll_by(key == KEY_UP ? -1 : 1);
                break;
        case KEY_PPAGE:
        case KEY_NPAGE:
                scroll_by(key == KEY_PPAGE ? -(LINES / 2) : LINES / 2);
                break;
        case KEY_HOME:
                scrolled = 0;
                break;
        case ' ':
        case '\r':
        case '\n':
        case KEY_ENTER:
                return TOP_LOOK;
        case '\f':
        case KEY_RESIZE: /* whatever the terminal shows by now */
                clearok(stdscr, TRUE);
                break;
        default:
                return TOP_NOTHING;
        }
        return TOP_DRAW;
}

/* True when the terminal has something for us, or has ended (*ret_ended). */
static bool wait_input(int64_t deadline, bool *ret_ended)
{
        struct pollfd input = {.fd = STDIN_FILENO, .events = POLLIN};
        int64_t left = deadline - g_get_monotonic_time();
        int r = poll(&input, 1, (int)CLAMP((left + 999) / 1000, 0, G_MAXINT));

        *ret_ended = r > 0 && !(input.revents & POLLIN);
        return r != 0; /* a signal: SIGWINCH is a key to ncurses */
}

enum top_command top_screen_wait(struct top *top, int64_t deadline)
{
        bool ended;

        while (!ended_by && g_get_monotonic_time() < deadline) {
                enum top_command command;
                int key;

                if (!wait_input(deadline, &ended))
                        return TOP_NOTHING;
                if (ended || ended_by)
                        return TOP_QUIT;
                while ((key = getch()) != ERR) {
                        command = do_key(top, key);
                        if (command != TOP_NOTHING)
                                return command;
                }
        }
        return ended_by ? TOP_QUIT : TOP_NOTHING;
}
