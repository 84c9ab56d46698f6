/* SPDX-License-Identifier: GPL-2.0-or-later */
/* The operations on image files, one row each; flags as qemu-img has them. See operations.c. */
#include "cli/cli.h"

#include "base/bytes.h"
#include "cli/disks.h"
#include "disk/disk.h"
#include "disk/nbd_server.h"

#define FORMAT                                                                                               \
    {                                                                                                        \
        .name = "format", .letter = 'f', .type = CLI_ENUM, .metavar = "FORMAT", .choice = disk_format_name,  \
        .help = "The image's format. It is told by the content if it is not given."                          \
    }
#define OPTION                                                                                               \
    {                                                                                                        \
        .name = "option", .letter = 'o', .type = CLI_STRING, .metavar = "NAME=VALUE[,...]",                  \
        .repeatable = true,                                                                                  \
        .help = "What the new format leaves open: cluster_size, compression_type=zlib|zstd, "                \
                "compat=0.10|1.1, refcount_bits=1..64, lazy_refcounts=on, extended_l2=on, "                  \
                "data_file=NAME and data_file_raw=on (qcow2), "                                              \
                "preallocation=off|metadata|falloc|full (qcow2; raw, but for metadata), "                    \
                "subformat=dynamic|fixed (vhd, vhdx), block_size (vhdx), "                                   \
                "for vmdk subformat=monolithicSparse, monolithicFlat, twoGbMaxExtentSparse, "                \
                "twoGbMaxExtentFlat or streamOptimized, encrypt.key-file=FILE, whose bytes are the "         \
                "secret, and encrypt.iter-time=MS (luks, qcow2)."                                            \
    }
#define FOLLOW                                                                                               \
    {                                                                                                        \
        .name = "follow", .type = CLI_BOOL,                                                                  \
        .help = "Open the files too that the image names, such as the one it is based on. An image that "    \
                "you have from somebody else could name any file of yours; so it is refused without this."   \
    }
#define SECRET                                                                                               \
    {                                                                                                        \
        .name = "secret-file", .type = CLI_PATH, .metavar = "FILE",                                          \
        .help = "The secret of an image that is encrypted: all bytes of this file, also a newline at its "   \
                "end. For luks, which has to be said: --format luks."                                        \
    }
#define JSON                                                                                                 \
    {                                                                                                        \
        .name = "json", .type = CLI_BOOL, .help = "Print JSON, for programs."                                \
    }
#define FILE_ARGUMENT                                                                                        \
    {                                                                                                        \
        .name = "FILE", .type = CLI_PATH, .positional = true, .required = true, .help = "The image."         \
    }

static const struct cli_argument create_arguments[] = {
    {.name = "format",
     .letter = 'f',
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .fallback = "raw",
     .choice = cli_disk_created_format,
     .help = "The new image's format."},
    OPTION,
    {.name = "backing",
     .letter = 'b',
     .type = CLI_PATH,
     .metavar = "BASE",
     .help = "The image that has all that is never written to the new one (qcow2; vmdk, vhd and vhdx on "
             "one of the same format); as its name is seen from the new one's directory. It must not change "
             "any more."},
    {.name = "backing-format",
     .letter = 'F',
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .choice = disk_format_name,
     .help = "That one's format."},
    {.name = "FILE", .type = CLI_PATH, .positional = true, .required = true, .help = "The new file."},
    {.name = "SIZE",
     .type = CLI_SIZE,
     .positional = true,
     .min = DISK_SECTOR,
     .max = INT64_MAX / DISK_SECTOR * DISK_SECTOR,
     .multiple = DISK_SECTOR,
     .help = "The disk's size. With --backing it is that one's if it is not given."},
};

static const struct cli_argument info_arguments[] = {FORMAT, JSON, FILE_ARGUMENT};

static const struct cli_argument map_arguments[] = {FORMAT, JSON, FOLLOW, SECRET, FILE_ARGUMENT};

static const struct cli_argument compare_arguments[] = {
    FORMAT,
    {.name = "format2",
     .letter = 'F',
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .choice = disk_format_name,
     .help = "The second image's format."},
    {.name = "strict",
     .letter = 's',
     .type = CLI_BOOL,
     .help = "They must have the same size too; otherwise the longer one may end in zeros."},
    FOLLOW,
    SECRET,
    FILE_ARGUMENT,
    {.name = "FILE2", .type = CLI_PATH, .positional = true, .required = true, .help = "The second image."},
};

static const struct cli_argument convert_arguments[] = {
    FORMAT,
    {.name = "output-format",
     .letter = 'O',
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .fallback = "raw",
     .choice = cli_disk_created_format,
     .help = "The new image's format."},
    OPTION,
    {.name = "compress",
     .letter = 'c',
     .type = CLI_BOOL,
     .help = "Compress what the disk has (qcow2; a streamOptimized vmdk always does)."},
    {.name = "no-sync",
     .type = CLI_BOOL,
     .help =
         "Be done before the new file is on the disk, as qemu-img is: if the host loses power then, so may "
         "the file be lost."},
    FOLLOW,
    SECRET,
    {.name = "SOURCE", .type = CLI_PATH, .positional = true, .required = true, .help = "The image to read."},
    {.name = "TARGET",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .help = "The new file. What has this name already is replaced at the end."},
};

static const struct cli_argument check_arguments[] = {FORMAT, JSON, FILE_ARGUMENT};

static const struct cli_argument repair_arguments[] = {
    FORMAT,
    {.name = "repair",
     .letter = 'r',
     .type = CLI_ENUM,
     .metavar = "WHAT",
     .fallback = "all",
     .choice = cli_disk_repair_choice,
     .help = "Repair all, or only give back space that leaked, which can't make anything worse."},
    JSON,
    FILE_ARGUMENT,
};

static const struct cli_argument serve_arguments[] = {
    FORMAT,
    SECRET,
    {.name = "socket",
     .letter = 'k',
     .type = CLI_PATH,
     .metavar = "PATH",
     .help = "Serve at this Unix socket, which is made; who may write to it may use the disks."},
    {.name = "port",
     .letter = 'p',
     .type = CLI_UINT,
     .metavar = "PORT",
     .max = 65535,
     .help = "Serve at this TCP port (NBD's own is 10809; 0: any that is free)."},
    {.name = "bind",
     .letter = 'b',
     .type = CLI_STRING,
     .metavar = "ADDRESS",
     .fallback = "127.0.0.1",
     .help = "At this address of the host: 0.0.0.0 or :: for all. Without TLS whoever reaches it may use the "
             "disks, so it is this host alone if nothing is said."},
    {.name = "read-only", .letter = 'r', .type = CLI_BOOL, .help = "Clients may not write."},
    {.name = "export",
     .letter = 'x',
     .type = CLI_STRING,
     .metavar = "NAME",
     .repeatable = true,
     .help = "What clients call the disk, once for each FILE. Without it one disk is the export without a "
             "name, and several have their files' names, without directories."},
    {.name = "tls-certificate",
     .type = CLI_PATH,
     .metavar = "DIR",
     .help = "Clients must use TLS. The directory has server-cert.pem and server-key.pem; with ca-cert.pem "
             "too, clients must have a certificate that is signed by that one's."},
    {.name = "tls-psk",
     .type = CLI_PATH,
     .metavar = "FILE",
     .help =
         "Clients must use TLS with one of the keys in this file, lines NAME:KEY as psktool writes them."},
    {.name = "persistent",
     .letter = 't',
     .type = CLI_BOOL,
     .help = "Go on when the last client has gone, until a signal ends it."},
    {.name = "shared",
     .letter = 'e',
     .type = CLI_UINT,
     .metavar = "N",
     .fallback = "16",
     .min = 1,
     .max = NBD_SERVER_CLIENTS_MAX,
     .help = "Serve so many connections at once; more wait. A client may have several, as nbdcopy does."},
    {.name = "bitmap",
     .letter = 'B',
     .type = CLI_STRING,
     .metavar = "NAME",
     .help =
         "Let clients ask what has changed by this bitmap of each image, as it is when serving begins: the "
         "meta context qemu:dirty-bitmap:NAME."},
    {.name = "pid-file",
     .type = CLI_PATH,
     .metavar = "PATH",
     .help = "Write the process's number there when clients can come; it is removed at the end."},
    FOLLOW,
    {.name = "FILE",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .repeatable = true,
     .help = "The images."},
};

static const struct cli_argument resize_arguments[] = {
    FORMAT,
    {.name = "shrink",
     .type = CLI_BOOL,
     .help =
         "Let the disk become smaller. What is beyond its new end is lost: the guest must have given that "
         "up before."},
    FOLLOW,
    SECRET,
    FILE_ARGUMENT,
    {.name = "SIZE",
     .type = CLI_STRING,
     .positional = true,
     .required = true,
     .help = "The new size, with K, M, G or T; +SIZE is that much more, -SIZE less (behind '--')."},
};

static const struct cli_argument rebase_arguments[] = {
    FORMAT,
    {.name = "backing",
     .letter = 'b',
     .type = CLI_STRING,
     .metavar = "BASE",
     .required = true,
     .help = "What it is to be based on, as its name is seen from the image's directory; \"\": nothing."},
    {.name = "backing-format",
     .letter = 'F',
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .choice = disk_format_name,
     .help = "That one's format."},
    {.name = "unsafe",
     .letter = 'u',
     .type = CLI_BOOL,
     .help =
         "Change the names alone: the same content is there under another name. If it is not, the disk is "
         "damaged."},
    FOLLOW,
    SECRET,
    FILE_ARGUMENT,
};

static const struct cli_argument commit_arguments[] = {
    FORMAT,
    {.name = "base",
     .letter = 'b',
     .type = CLI_PATH,
     .metavar = "BASE",
     .help = "Which of the images that it is based on is to be written, if not the first. Those between are "
             "of no use any more, then."},
    {.name = "keep",
     .letter = 'd',
     .type = CLI_BOOL,
     .help = "Leave the image as it is. Without it, it is empty after that, unless --base is given."},
    FOLLOW,
    SECRET,
    FILE_ARGUMENT,
};

static const struct cli_argument snapshot_arguments[] = {
    FORMAT,
    JSON,
    {.name = "ACTION",
     .type = CLI_ENUM,
     .positional = true,
     .required = true,
     .choice = cli_disk_snapshot_action,
     .help =
         "list; create NAME, of what the disk has now; apply NAME: the disk becomes what it was, and what it "
         "has now is lost; delete NAME."},
    FILE_ARGUMENT,
    {.name = "NAME", .type = CLI_STRING, .positional = true, .help = "The snapshot's name, or its id."},
};

static const struct cli_argument bitmap_arguments[] = {
    FORMAT,
    JSON,
    {.name = "granularity",
     .letter = 'g',
     .type = CLI_SIZE,
     .metavar = "SIZE",
     .min = 512,
     .max = 1ull << 31,
     .help = "add: for how much of the disk there is one bit, a power of 2 from 512 to 2G. Without it, a "
             "cluster, but from 4K to 64K."},
    {.name = "ACTION",
     .type = CLI_ENUM,
     .positional = true,
     .required = true,
     .choice = cli_disk_bitmap_action,
     .help = "list; add NAME, enabled and empty; remove NAME; clear NAME: nothing has changed; enable NAME; "
             "disable NAME: what is written is not recorded; merge NAME SOURCE: what has changed by SOURCE "
             "has by NAME too."},
    FILE_ARGUMENT,
    {.name = "NAME", .type = CLI_STRING, .positional = true, .help = "The bitmap."},
    {.name = "SOURCE", .type = CLI_STRING, .positional = true, .help = "merge: another bitmap of the image."},
};

static const struct cli_status statuses[] = {
    {"0", "done"},
    {"1", "it could not be done; the message says why, and nothing has changed"},
};

static const struct cli_status rebase_statuses[] = {
    {"0", "done"},
    {"1", "it could not be done; the message says why, and the disk is what it was"},
    {"130", "you interrupted it; the disk is what it was"},
};

static const struct cli_status compare_statuses[] = {
    {"0", "the disks are identical"},
    {"1", "they differ"},
    {"3", "they could not be compared; the message says why"},
    {"130", "you interrupted it"},
};

static const struct cli_status convert_statuses[] = {
    {"0", "the new image is there"},
    {"1", "it could not be made; the message says why, and nothing has changed"},
    {"130", "you interrupted it; nothing has changed"},
};

static const struct cli_status check_statuses[] = {
    {"0", "the image is consistent (now)"},
    {"1", "it could not be checked; the message says why"},
    {"2", "it is corrupt"},
    {"3", "space leaked, and that is all"},
    {"63", "its format has nothing that could be checked"},
    {"130", "you interrupted it"},
};

static const struct cli_status serve_statuses[] = {
    {"0", "it was ended, and all that was written is in the images"},
    {"1", "it could not be done, or something could not be written; the message says what"},
};

#define ARGUMENTS(a) .arguments = (a), .n_arguments = ARRAY_SIZE(a)
#define STATUSES(a)  .statuses = (a), .n_statuses = ARRAY_SIZE(a)

const struct cli_operation cli_disk_operations[] = {
    {.name = "disk create",
     .summary = "Make an empty image, or one on top of another",
     .description = "Makes a new file. The host gives space to what is written to it only.",
     ARGUMENTS(create_arguments),
     STATUSES(statuses),
     .example = "tabique disk create -f qcow2 a.qcow2 20G\n"
                "tabique disk create -f qcow2 -b a.qcow2 -F qcow2 child.qcow2",
     .run = cli_disk_create},
    {.name = "disk info",
     .summary = "Tell what an image is",
     .description = "Prints its format, its size as a guest sees it, what it takes on this host, what it is "
                    "based on, and what its header says besides. Opens no other file.",
     ARGUMENTS(info_arguments),
     STATUSES(statuses),
     .run = cli_disk_info},
    {.name = "disk check",
     .summary = "Tell whether an image is consistent",
     .description = "Looks at all tables of the image, and at nothing that it is based on. Changes nothing. "
                    "--json prints what qemu-img check prints.",
     ARGUMENTS(check_arguments),
     STATUSES(check_statuses),
     .run = cli_disk_check},
    {.name = "disk repair",
     .summary = "Make an image consistent",
     .description =
         "Does what 'disk check' does, and mends what can be mended: counts that are wrong, marks that an "
         "unclean end has left, entries that point nowhere. What these stood for is lost already, and reads "
         "as zeros then.",
     ARGUMENTS(repair_arguments),
     STATUSES(check_statuses),
     .run = cli_disk_repair},
    {.name = "disk map",
     .summary = "Tell where a disk's content is",
     .description =
         "Prints a line for each piece of the disk that is not zeros: where it begins, how long it "
         "is, and which file has it where. With --json all pieces, as qemu-img does.",
     ARGUMENTS(map_arguments),
     STATUSES(statuses),
     .run = cli_disk_map},
    {.name = "disk compare",
     .summary = "Tell whether two disks have the same content",
     .description = "Compares what guests would read, whatever the images' formats.",
     ARGUMENTS(compare_arguments),
     STATUSES(compare_statuses),
     .example = "tabique disk compare a.qcow2 a.raw",
     .run = cli_disk_compare},
    {.name = "disk convert",
     .summary = "Copy a disk into an image of another format",
     .description =
         "Copies all that a guest would read. Zeros take no space in the new image. The file gets its name "
         "when it is whole; until then, and if anything goes wrong, what was there stays as it was.",
     ARGUMENTS(convert_arguments),
     STATUSES(convert_statuses),
     .example = "tabique disk convert -O qcow2 -c -o compression_type=zstd a.raw a.qcow2",
     .run = cli_disk_convert},
    {.name = "disk serve",
     .summary = "Let other programs use disks over NBD",
     .description =
         "Serves what guests would read and write to clients of the NBD protocol: nbd-client, qemu, libnbd's "
         "tools, fio. Prints each disk's address when it can be used, and stays until the last client has "
         "gone, or with --persistent until SIGINT, SIGTERM or SIGHUP.\n\n"
         "What reads the images and talks to clients is a process of its own, which can do nothing else.",
     ARGUMENTS(serve_arguments),
     STATUSES(serve_statuses),
     .example = "tabique disk serve a.qcow2 --socket /tmp/a.sock\n"
                "tabique disk serve a.qcow2 b.raw --port 10809 --persistent --tls-psk keys.psk",
     .run = cli_disk_serve},
    {.name = "disk resize",
     .summary = "Give a disk another size",
     .description = "A larger disk has zeros where it is new; partitions and file systems in it do not grow "
                    "with it. Internal snapshots keep their size.",
     ARGUMENTS(resize_arguments),
     STATUSES(statuses),
     .example = "tabique disk resize a.qcow2 +5G",
     .run = cli_disk_resize},
    {.name = "disk snapshot",
     .summary = "Keep states of a disk inside its image (qcow2)",
     .description =
         "A snapshot takes no space when it is made; what the disk changes then is kept twice. If it "
         "is interrupted the image is as before, or as after it; some space may leak, which 'disk "
         "repair' gives back.",
     ARGUMENTS(snapshot_arguments),
     STATUSES(statuses),
     .example = "tabique disk snapshot create a.qcow2 before-upgrade\n"
                "tabique disk snapshot list a.qcow2",
     .run = cli_disk_snapshot},
    {.name = "disk bitmap",
     .summary = "Keep book inside an image of what of the disk has changed (qcow2)",
     .description = "Whoever writes to the image records it in the bitmaps that are enabled, and stores them "
                    "at the end. "
                    "One whose user came to no orderly end is inconsistent, and can only be removed.",
     ARGUMENTS(bitmap_arguments),
     STATUSES(statuses),
     .example = "tabique disk bitmap add a.qcow2 monday\n"
                "tabique disk bitmap list a.qcow2",
     .run = cli_disk_bitmap},
    {.name = "disk rebase",
     .summary = "Have an image be based on another one",
     .description =
         "The disk stays what it is: what the old and the new base have different is copied into the "
         "image first. With --backing \"\" it has all itself then.",
     ARGUMENTS(rebase_arguments),
     STATUSES(rebase_statuses),
     .example = "tabique disk rebase --follow -b new.qcow2 -F qcow2 child.qcow2",
     .run = cli_disk_rebase},
    {.name = "disk commit",
     .summary = "Copy what an image has into what it is based on",
     .description = "Other images that are based on that one are damaged by it.",
     ARGUMENTS(commit_arguments),
     STATUSES(rebase_statuses),
     .run = cli_disk_commit},
};

const size_t cli_n_disk_operations = ARRAY_SIZE(cli_disk_operations);
