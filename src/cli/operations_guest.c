/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operations on guests that are there, one row each. See operations.c. */
#include "cli/cli.h"

#include "base/bytes.h"
#include "cli/options.h"
#include "device/guest_memory.h"
#include "engine/profile.h"
#include "guest/control.h"

#define RUNNING "ps --quiet"
#define ALL     "ps --all --quiet"

#define NAME_OF(list)                                                                                        \
    {                                                                                                        \
        .name = "NAME", .type = CLI_STRING, .positional = true, .required = true, .listed_by = (list),       \
        .help = "The guest's name; 'tabique ps -a' lists them."                                              \
    }
#define NAMES_OF(list)                                                                                       \
    {                                                                                                        \
        .name = "NAME", .type = CLI_STRING, .positional = true, .required = true, .repeatable = true,        \
        .listed_by = (list), .help = "The guests' names; 'tabique ps -a' lists them."                        \
    }
#define TIMEOUT                                                                                              \
    {                                                                                                        \
        .name = "timeout", .type = CLI_STRING, .metavar = "TIME", .fallback = "30s",                         \
        .check = cli_check_duration,                                                                         \
        .help =                                                                                              \
            "How long the guest may take to switch itself off, such as 10, 1.5s or 2m; then it is killed."   \
    }
#define JSON(what)                                                                                           \
    {                                                                                                        \
        .name = "json", .type = CLI_BOOL, .help = "Print " what ", for programs."                            \
    }

static const struct cli_status statuses[] = {
    {"0", "done"},
    {"1", "it could not be done, of several guests not with each; the message says why"},
};

static const struct cli_argument ps_arguments[] = {
    {.name = "all", .letter = 'a', .type = CLI_BOOL, .help = "Also those that do not run."},
    {.name = "quiet", .letter = 'q', .type = CLI_BOOL, .help = "Print the names only."},
    JSON("one JSON array"),
};

static const struct cli_argument console_arguments[] = {NAME_OF(RUNNING)};

static const struct cli_status console_statuses[] = {
    {"0", "you left with Ctrl-], or the guest ended"},
    {"1", "the guest does not run, or can't be reached; the message says why"},
    {"128 + N", "signal N ended it: 143 after SIGTERM, 129 after SIGHUP"},
};

static const struct cli_argument logs_arguments[] = {
    {.name = "follow",
     .letter = 'f',
     .type = CLI_BOOL,
     .help = "Go on with what the guest writes, until it ends."},
    NAME_OF(ALL),
};

static const struct cli_argument inspect_arguments[] = {NAME_OF(ALL)};

static const struct cli_argument stats_arguments[] = {
    JSON("a JSON object for each guest, a line each"),
    {.name = "watch", .letter = 'w', .type = CLI_BOOL, .help = "Print anew every second, until interrupted."},
    {.name = "NAME",
     .type = CLI_STRING,
     .positional = true,
     .repeatable = true,
     .listed_by = RUNNING,
     .help = "The guests' names; all that run without."},
};

static const char *format_choice(size_t i)
{
    static const char *const choices[] = {"folded", "perf"};

    return i < ARRAY_SIZE(choices) ? choices[i] : NULL;
}

static const struct cli_argument profile_arguments[] = {
    NAME_OF(RUNNING),
    {.name = "time",
     .type = CLI_STRING,
     .metavar = "TIME",
     .fallback = "10s",
     .check = cli_check_duration,
     .help = "How long to look, such as 10, 1.5s or 2m. Ctrl-C ends it before."},
    {.name = "frequency",
     .type = CLI_UINT,
     .metavar = "HZ",
     .fallback = "99",
     .min = 1,
     .max = ENGINE_PROFILE_HZ_MAX,
     .help = "How often a second each of its processors is looked at."},
    {.name = "symbols",
     .type = CLI_PATH,
     .metavar = "FILE",
     .repeatable = true,
     .help = "The names of functions: a copy of the guest's /proc/kallsyms as its root sees it, the "
             "System.map of its "
             "kernel, or what 'nm' prints of a program that is where it was linked to. May be given more "
             "than once. "
             "Without it addresses are printed."},
    {.name = "format",
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .fallback = "folded",
     .choice = format_choice,
     .help = "folded: a line for each stack with how often it was found, as flamegraph.pl, inferno and "
             "speedscope read "
             "it. perf: each sample as 'perf script' prints it, with its time."},
    {.name = "activities",
     .type = CLI_BOOL,
     .help =
         "Add to each stack what the processor's thread was at: translated, direct, translating, helpers."},
    {.name = "output",
     .type = CLI_PATH,
     .metavar = "FILE",
     .help = "Where to write, instead of standard output."},
};

static const struct cli_status profile_statuses[] = {
    {"0", "done"},
    {"1", "it could not be done, or the guest ended before; then what there was is written"},
};

static const struct cli_argument stop_arguments[] = {
    TIMEOUT,
    {.name = "all", .letter = 'a', .type = CLI_BOOL, .help = "All that run, instead of those named."},
    {.name = "shutdown",
     .type = CLI_BOOL,
     .help = "The host goes down: those whose restart policy is unless-stopped don't count as stopped, and "
             "'start "
             "--all' starts them."},
    {.name = "NAME",
     .type = CLI_STRING,
     .positional = true,
     .repeatable = true,
     .listed_by = RUNNING,
     .help = "The guests' names; 'tabique ps' lists them."},
};
static const struct cli_argument kill_arguments[] = {NAMES_OF(RUNNING)};

static const struct cli_argument start_arguments[] = {
    {.name = "attach",
     .letter = 'a',
     .type = CLI_BOOL,
     .help = "Then connect its console to this terminal; Ctrl-] leaves, and the guest goes on."},
    {.name = "all",
     .type = CLI_BOOL,
     .help = "As when the host has started: all that don't run and whose restart policy is always, or is "
             "unless-stopped and nobody stopped them (by 'stop', 'kill' or Ctrl-])."},
    {.name = "NAME",
     .type = CLI_STRING,
     .positional = true,
     .listed_by = ALL,
     .help = "The guest's name; 'tabique ps -a' lists them."},
};

static const struct cli_status start_statuses[] = {
    {"0", "the guest runs, with --all each that is to; with --attach you left, or it powered off"},
    {"1", "it could not be started; the message says why"},
    {"other", "with --attach: the guest's exit status, as after 'run'"},
};

static const struct cli_argument restart_arguments[] = {TIMEOUT, NAME_OF(ALL)};
static const struct cli_argument pause_arguments[] = {NAMES_OF(RUNNING)};

static const struct cli_argument balloon_arguments[] = {
    NAME_OF(RUNNING),
    {.name = "SIZE",
     .type = CLI_SIZE,
     .positional = true,
     .required = true,
     .min = 1 << 20,
     .max = GUEST_MEMORY_MAX,
     .multiple = GUEST_PAGE_SIZE,
     .help = "The memory that the guest is to keep, such as 512M: at most what 'run --memory' gave it, which "
             "takes "
             "nothing from it any more."},
};

static const struct cli_argument exec_arguments[] = {
    {.name = "user",
     .type = CLI_STRING,
     .metavar = "USER[:GROUP]",
     .help = "Who the program runs as, as with 'run'. Default: as the container's own."},
    {.name = "workdir", .type = CLI_STRING, .metavar = "DIR", .help = "The program's working directory."},
    {.name = "env",
     .type = CLI_STRING,
     .metavar = "NAME=VALUE",
     .repeatable = true,
     .help = "A variable more in its environment. May be given more than once."},
    NAME_OF(RUNNING),
    {.name = "COMMAND",
     .type = CLI_STRING,
     .positional = true,
     .required = true,
     .repeatable = true,
     .help = "The program and its arguments; after '--', so that those are not taken for flags of this one."},
};

static const struct cli_status exec_statuses[] = {
    {"1", "the container does not run, or can't be reached; the message says why"},
    {"126", "the program can't be executed"},
    {"127", "the program is not there"},
    {"128 + N", "signal N ended it"},
    {"other", "the program's own"},
};

static const struct cli_argument cp_arguments[] = {
    {.name = "FROM",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .help = "A file or directory of the host, or NAME:PATH in a container."},
    {.name = "TO",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .help = "The other side. A directory that is there gets the file under its own name."},
};

static const struct cli_argument update_arguments[] = {
    {.name = "memory",
     .type = CLI_SIZE,
     .metavar = "SIZE",
     .min = GUEST_MEMORY_MIN,
     .max = GUEST_MEMORY_MAX,
     .multiple = GUEST_PAGE_SIZE,
     .help = "The most memory that it may use."},
    {.name = "cpus",
     .type = CLI_DECIMAL,
     .metavar = "N",
     .min = 10,
     .max = 4096000,
     .help = "The time of how many processors it may use, such as 1.5."},
    {.name = "pids",
     .type = CLI_UINT,
     .metavar = "N",
     .min = 1,
     .max = 4194304,
     .help = "How many processes and threads it may have."},
    {.name = "io-weight",
     .type = CLI_UINT,
     .metavar = "N",
     .min = 10,
     .max = 1000,
     .help = "Its share of disks, against 100 of others."},
    {.name = "disk",
     .type = CLI_STRING,
     .metavar = "DISK,OPTION...",
     .repeatable = true,
     .help = "Of a virtual machine: what is to change of a disk, which is called as Linux does: vda is the "
             "first. "
             "Options: size=SIZE, which the guest is told of where it runs; and limits as with 'run --disk': "
             "bps=20M, "
             "iops=100, of which 0 is none."},
    NAME_OF(ALL),
};

static const struct cli_argument rm_arguments[] = {
    {.name = "force", .letter = 'f', .type = CLI_BOOL, .help = "Kill a guest that runs."},
    NAMES_OF(ALL),
};

static const struct cli_argument events_arguments[] = {
    {.name = "follow",
     .letter = 'f',
     .type = CLI_BOOL,
     .help = "Go on with what happens, until interrupted."},
    {.name = "since",
     .type = CLI_STRING,
     .metavar = "TIME",
     .check = cli_check_time,
     .help = "Only what happened from then on: a date (2026-01-31), a date and time of this host "
             "(2026-01-31T12:00:00), seconds since 1970 (@1769857200), or so long ago (10m, 2h)."},
};

#define ARGUMENTS(a) .arguments = (a), .n_arguments = ARRAY_SIZE(a)
#define STATUSES(a)  .statuses = (a), .n_statuses = ARRAY_SIZE(a)

const struct cli_operation cli_guest_operations[] = {
    {.name = "ps",
     .summary = "List the guests",
     .description =
         "Prints a line for each guest that runs: its name, its state, since when, what it boots, its "
         "processors and its memory; of a container with a check also whether it is healthy. A guest whose "
         "supervisor was killed is found out and told as "
         "crashed.",
     ARGUMENTS(ps_arguments),
     STATUSES(statuses),
     .run = cli_ps},
    {.name = "console",
     .summary = "Connect this terminal to a guest's console",
     .description =
         "What the guest writes appears here, every key goes to the guest, Ctrl-C too. Ctrl-] leaves, and "
         "the guest goes on. Several may be connected at once: all see the same, and all may type. Input "
         "and output may as well be pipes or files.",
     ARGUMENTS(console_arguments),
     STATUSES(console_statuses),
     .run = cli_console},
    {.name = "logs",
     .summary = "Print what a guest has written to its console",
     .description = "Prints the console's log. Its last 8 to 16 MiB are kept, over all runs of the guest.",
     ARGUMENTS(logs_arguments),
     STATUSES(statuses),
     .run = cli_logs},
    {.name = "inspect",
     .summary = "Print all that is known of a guest, as JSON",
     .description =
         "Prints one JSON object: the guest's state, how it ended, its files and processes, and its "
         "configuration with the names of the flags of 'run'. Of one that runs on the soft engine also, as "
         "no-direct-execution, why its user code is all translated, where the host lets none run directly.",
     ARGUMENTS(inspect_arguments),
     STATUSES(statuses),
     .run = cli_inspect},
    {.name = "stats",
     .summary = "Tell what guests use",
     .description =
         "Prints a line for each guest: processor time, memory on this host, what its memory "
         "balloon has given back of "
         "what it is to give, how long it has been running. "
         "The percentage is of one of the host's processors. Of named guests on the soft engine also how "
         "each of their processors spent the time since the last look (0.2 s, 1 s with --watch): in "
         "translated code, in the guest's own code, translating, in helpers written in C, or idle; what "
         "translated code was left for, and how full the code cache is.",
     ARGUMENTS(stats_arguments),
     STATUSES(statuses),
     .run = cli_stats},
    {.name = "profile",
     .summary = "Tell which of its functions a guest spends its time in",
     .description =
         "Looks at the guest's processors now and then, and writes where they were: in which function of the "
         "guest's kernel, or in which address space and where in it, with the callers as far as code has "
         "frame "
         "pointers. A look is answered at the next backward or indirect branch. Nothing is needed in the "
         "guest, and "
         "while nobody looks it costs nothing. For the soft engine: what the processor executes itself is "
         "for 'perf kvm --guest record' of the host.",
     ARGUMENTS(profile_arguments),
     STATUSES(profile_statuses),
     .example = "tabique profile web --symbols kallsyms | flamegraph.pl >web.svg",
     .run = cli_profile},
    {.name = "stop",
     .summary = "Have guests switch themselves off",
     .description =
         "Presses each guest's power button, and kills those that have not switched themselves off in "
         "time. Returns when all have ended. A guest that does not run is left alone. A container gets its "
         "image's stop signal and, without --timeout, the time that its image gives it.",
     ARGUMENTS(stop_arguments),
     STATUSES(statuses),
     .run = cli_stop},
    {.name = "kill",
     .summary = "End guests at once",
     .description =
         "As pulling the plug: what a guest has not written to its disks is lost. Works also where a "
         "guest's supervisor hangs.",
     ARGUMENTS(kill_arguments),
     STATUSES(statuses),
     .run = cli_kill},
    {.name = "start",
     .summary = "Start a guest that does not run",
     .description =
         "Starts it in the background, as it was configured by 'run', with its disk as it left it. Returns "
         "when it runs. The systemd unit tabique-guests.service calls 'start --all' when the host, or for "
         "'systemctl "
         "--user' the person's session, starts, and 'stop --all --shutdown' when it ends.",
     ARGUMENTS(start_arguments),
     STATUSES(start_statuses),
     .run = cli_start},
    {.name = "restart",
     .summary = "Stop a guest and start it",
     .description = "As 'stop', then 'start'. A guest that does not run is started, one that is removed at "
                    "its end (--rm) left "
                    "alone.",
     ARGUMENTS(restart_arguments),
     STATUSES(statuses),
     .run = cli_restart},
    {.name = "pause",
     .summary = "Have guests stand still",
     .description = "Their processors execute nothing until 'resume'. Their memory stays.",
     ARGUMENTS(pause_arguments),
     STATUSES(statuses),
     .run = cli_pause},
    {.name = "resume",
     .summary = "Have paused guests go on",
     .description = "Undoes 'pause'.",
     ARGUMENTS(pause_arguments),
     STATUSES(statuses),
     .run = cli_resume},
    {.name = "balloon",
     .summary = "Change how much memory a running guest has",
     .description = "Has the driver of the guest's memory balloon give back to the host what the guest has "
                    "beyond SIZE, or take "
                    "it back. Returns at once: the guest gets there as far and as fast as it can, and "
                    "'stats' tells what it has "
                    "given and what it is to give. It stays so while the guest runs; 'start' begins with "
                    "what 'run --balloon' "
                    "said.",
     ARGUMENTS(balloon_arguments),
     STATUSES(statuses),
     .example = "tabique balloon web 512M",
     .run = cli_balloon},
    {.name = "exec",
     .summary = "Run a program in a container",
     .description = "The program runs beside those that are there, with this terminal, or standard input and "
                    "output, as its "
                    "own. Ends with it.",
     ARGUMENTS(exec_arguments),
     STATUSES(exec_statuses),
     .example = "tabique exec web -- ps aux",
     .run = cli_exec},
    {.name = "cp",
     .summary = "Copy files into a container or out of it",
     .description = "Copies a file, or a directory with all that is in it; the container need not run. What "
                    "comes in is root's "
                    "there, what comes out yours. Links in the container lead nowhere else than in it.",
     ARGUMENTS(cp_arguments),
     STATUSES(statuses),
     .example = "tabique cp a.txt web:/tmp/",
     .run = cli_cp},
    {.name = "update",
     .summary = "Change a guest's limits, or the size of its disk",
     .description =
         "A container's memory, processors, processes and share of disks; a virtual machine's disks. At once "
         "where it runs, and for its later starts. What is not given stays as it is.",
     ARGUMENTS(update_arguments),
     STATUSES(statuses),
     .example = "tabique update web --memory 1G",
     .run = cli_update},
    {.name = "rm",
     .summary = "Remove guests",
     .description = "Removes them with their disks and logs. One that runs is left alone, but with --force.",
     ARGUMENTS(rm_arguments),
     STATUSES(statuses),
     .run = cli_rm},
    {.name = "events",
     .summary = "Tell what happened to guests",
     .description =
         "Prints a JSON object for each event, a line each, the oldest first: created, started, paused, "
         "resumed, reset (by the guest itself), panicked, watchdog, link-down, stopping, ended, crashed, "
         "restarting (by its policy), "
         "failed, removed. Some 20,000 are kept. Of what a guest causes over and over one a second is told, "
         "and "
         "with it, as 'left-out', how many were not.",
     ARGUMENTS(events_arguments),
     STATUSES(statuses),
     .run = cli_events},
};

const size_t cli_n_guest_operations = ARRAY_SIZE(cli_guest_operations);
