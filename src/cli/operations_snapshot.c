/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operations on what a guest's disks have, or have had, one row each. See operations.c. */
#include "cli/cli.h"

#include "base/bytes.h"
#include "cli/disks.h"
#include "cli/options.h"
#include "guest/control.h"

#define GUEST                                                                                                \
    {                                                                                                        \
        .name = "NAME", .type = CLI_STRING, .positional = true, .required = true,                            \
        .listed_by = "ps --all --quiet", .help = "The guest's name; 'tabique ps -a' lists them."             \
    }
#define SNAPSHOT(text)                                                                                       \
    {                                                                                                        \
        .name = "SNAPSHOT", .type = CLI_STRING, .positional = true, .required = true, .help = (text)         \
    }

#define FREEZE                                                                                               \
    {                                                                                                        \
        .name = "freeze", .type = CLI_ENUM, .metavar = "WHEN", .choice = control_freeze_name,                \
        .help = "Whether a guest that runs is to freeze its file systems for that moment, so that they are " \
                "as after unmounting; qemu-guest-agent in it does. 'try', which is the default: if it can; " \
                "'always': or it is an error."                                                               \
    }

static const struct cli_status statuses[] = {
    {"0", "done"},
    {"1", "it could not be done; the message says why"},
};

static const struct cli_status long_statuses[] = {
    {"0", "done"},
    {"1", "it could not be done; the message says why"},
    {"130", "it was interrupted; nothing is lost"},
};

static const struct cli_argument snapshot_arguments[] = {
    {.name = "description", .type = CLI_STRING, .metavar = "TEXT", .help = "A line to remember it by."},
    FREEZE,
    GUEST,
    SNAPSHOT("What it is to be called: letters, digits, '-', '_' and '.'."),
};

static const struct cli_argument snapshots_arguments[] = {
    {.name = "json", .type = CLI_BOOL, .help = "Print one JSON array, for programs."},
    GUEST,
};

static const struct cli_argument restore_arguments[] = {
    GUEST,
    SNAPSHOT("The snapshot; 'tabique snapshots NAME' lists them."),
};

static const struct cli_argument clone_arguments[] = {
    {.name = "full",
     .type = CLI_BOOL,
     .help = "Copy the disks: the new guest needs nothing of the other's, which may then be removed."},
    FREEZE,
    {.name = "snapshot",
     .type = CLI_STRING,
     .metavar = "SNAPSHOT",
     .help = "As the disks were in this snapshot, instead of as they are now."},
    GUEST,
    {.name = "NEW",
     .type = CLI_STRING,
     .positional = true,
     .check = cli_check_guest_name,
     .help = "The new guest's name. One is made up if none is given."},
};

static const struct cli_status backup_statuses[] = {
    {"0", "done"},
    {"1", "it could not be done; the message says why"},
    {"130", "it was interrupted; nothing is left of it"},
};

#define OUTPUT_FORMAT                                                                                        \
    {                                                                                                        \
        .name = "output-format", .letter = 'O', .type = CLI_ENUM, .metavar = "FORMAT",                       \
        .choice = cli_disk_created_format,                                                                   \
        .help = "The format of a new file. If it is not given: raw if the name ends in .raw or .img, else "  \
                "qcow2."                                                                                     \
    }
#define RATE                                                                                                 \
    {                                                                                                        \
        .name = "rate", .type = CLI_SIZE, .metavar = "BYTES", .min = 1, .max = INT64_MAX,                    \
        .help = "Read so many bytes a second of each disk at most, such as 50M. What the guest waits for "   \
                "is read at once."                                                                           \
    }

#define ONE_DISK                                                                                             \
    {                                                                                                        \
        .name = "disk", .type = CLI_STRING, .metavar = "DISK", .check = cli_check_disk_name,                 \
        .help = "The disk, as the guest calls it: vda is the first. It may be left out if there is one."     \
    }

static const struct cli_argument backup_arguments[] = {
    {.name = "disk",
     .type = CLI_STRING,
     .metavar = "DISK",
     .check = cli_check_disk_name,
     .help = "The disk, as the guest calls it: vda is the first. Without it all are taken, as of the same "
             "moment."},
    {.name = "full",
     .type = CLI_BOOL,
     .help = "All of each disk, also where the directory has an earlier backup that only a part has changed "
             "since."},
    FREEZE,
    OUTPUT_FORMAT,
    RATE,
    GUEST,
    {.name = "TARGET",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .help = "A directory; or for one disk a new file, a block device, or a server's disk (nbd://HOST/NAME), "
             "which then "
             "gets all that the disk has."},
};

static const struct cli_argument mirror_arguments[] = {
    ONE_DISK,
    {.name = "pivot",
     .type = CLI_BOOL,
     .help = "When the mirror is there, the guest goes on in it, now and at its later starts. It is a new "
             "raw or qcow2 "
             "file then, and based on nothing."},
    OUTPUT_FORMAT,
    RATE,
    GUEST,
    {.name = "TARGET",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .help = "A new file, a block device, or a server's disk (nbd://HOST/NAME)."},
};

static const struct cli_argument stream_arguments[] = {
    ONE_DISK,
    RATE,
    GUEST,
};

#define ARGUMENTS(a) .arguments = (a), .n_arguments = ARRAY_SIZE(a)
#define STATUSES(a)  .statuses = (a), .n_statuses = ARRAY_SIZE(a)

const struct cli_operation cli_snapshot_operations[] = {
    {.name = "snapshot",
     .summary = "Keep what a guest's disks have now under a name",
     .description = "Nothing is copied: what is on the disks stays where it is and is written no more, and "
                    "the guest goes on with "
                    "new files on top. All its disks are kept as of the same moment. A guest that runs "
                    "stands still for that "
                    "moment, and its disks are flushed: how long is printed. Memory is not kept: going back "
                    "is as after pulling "
                    "the plug at that moment.",
     ARGUMENTS(snapshot_arguments),
     STATUSES(statuses),
     .example = "tabique snapshot web before-upgrade",
     .run = cli_snapshot},
    {.name = "snapshots",
     .summary = "List a guest's snapshots, as a tree",
     .description =
         "Prints a line for each snapshot, below the one that it follows: its name, when it was made, and "
         "the space that "
         "its files take on the host beyond those of the one before. '(now)' is where the disks are.",
     ARGUMENTS(snapshots_arguments),
     STATUSES(statuses),
     .run = cli_snapshots},
    {.name = "restore",
     .summary = "Take a guest's disks back to a snapshot",
     .description = "What the disks had since is lost, unless a later snapshot has it: those stay, and one "
                    "may go to them as well. "
                    "A guest that runs is ended as by 'kill', and started again from the snapshot.",
     ARGUMENTS(restore_arguments),
     STATUSES(statuses),
     .run = cli_restore},
    {.name = "snapshot-rm",
     .summary = "Forget a snapshot",
     .description = "The name goes, and with it what only the snapshot needs; what later snapshots or the "
                    "guest need of it is merged "
                    "into their files, and the space is given back. The guest may run meanwhile; then its "
                    "newest file is left as it "
                    "is until the next time. A snapshot that clones are based on stays.",
     ARGUMENTS(restore_arguments),
     STATUSES(long_statuses),
     .run = cli_snapshot_rm},
    {.name = "backup",
     .summary = "Copy the disks of a guest",
     .description =
         "The copy has what the disks had at the moment at which it began, whatever the guest "
         "writes meanwhile: what it "
         "is about to write over is copied first. In a directory each disk gets a file "
         "NAME-DISK-ID.qcow2. From then on "
         "a disk that is a qcow2 image keeps a record of what changes, so that the next backup "
         "there has only that, and "
         "is based on the one before; they are to be kept together. A guest that does not run can't be "
         "started meanwhile. Where there is no such "
         "record, as after a crash of "
         "the host or in a raw image, everything is copied.\n\n"
         "A file gets its name when it is whole. If the command is interrupted or the guest ends "
         "before, nothing is left "
         "of it; the guest goes on in any case. A disk of which a copy is being made gets no "
         "snapshot and no other size.",
     ARGUMENTS(backup_arguments),
     STATUSES(backup_statuses),
     .example = "tabique backup web /backups",
     .run = cli_backup},
    {.name = "mirror",
     .summary = "Copy a disk of a guest, as it is at the end",
     .description =
         "Where a backup has what the disk had when it began, a mirror has what it has when it ends: what "
         "the guest writes "
         "meanwhile is copied again, until little is left; then its writes wait a moment for that.\n\n"
         "A file gets its name when it is whole. If the command is interrupted or the guest ends before, "
         "nothing is left "
         "of it; the guest goes on in any case.",
     ARGUMENTS(mirror_arguments),
     STATUSES(backup_statuses),
     .example = "tabique mirror web --disk vda --pivot /fast/web.qcow2",
     .run = cli_backup},
    {.name = "stream",
     .summary = "Have a disk of a guest that runs be based on nothing",
     .description = "All that the disk's newest file does not have itself is copied into it from the files "
                    "that it is based on: an "
                    "image's, a clone's source's, snapshots'. From then on it stands alone, and reading it "
                    "takes no way through others. "
                    "What only it needed of them is deleted; snapshots stay. The guest runs meanwhile.\n\n"
                    "If the command is interrupted, the disk is still based on them, and what was copied "
                    "need not be copied again.",
     ARGUMENTS(stream_arguments),
     STATUSES(long_statuses),
     .example = "tabique stream web --disk vda",
     .run = cli_stream},
    {.name = "clone",
     .summary = "Make a guest like another",
     .description =
         "The new guest has the same configuration and what the other's disks have now; it does not run. Its "
         "disks are "
         "based on the other's: nothing is copied, it is ready at once, and the other can't be removed "
         "before it. A "
         "guest that runs stands still for a moment, as with 'snapshot'. The new one has a name, network "
         "addresses, and "
         "where it has them host name, machine id and instance id of cloud-init of its own; ports "
         "(--publish), chosen "
         "addresses (--mac), --vsock and --firmware-log are not taken over. Prints the new guest's name.",
     ARGUMENTS(clone_arguments),
     STATUSES(long_statuses),
     .example = "tabique clone web web2 && tabique start web2",
     .run = cli_clone},
};

const size_t cli_n_snapshot_operations = ARRAY_SIZE(cli_snapshot_operations);
