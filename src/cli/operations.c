/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The operations, one row each. Everything that a person can learn of them (help, man page, completion) and
 * the parser's checks come from here.
 */
#include "cli/cli.h"

#include "base/bytes.h"
#include "cli/options.h"
#include "device/guest_memory.h"
#include "device/virtio/vsock.h"
#include "disk/disk.h"
#include "engine/engine.h"
#include "image/image.h"

#include <string.h>

static const char *engine_choice(size_t i)
{
    return i == 0 ? "auto" : engine_classes[i - 1] ? engine_classes[i - 1]->name : NULL;
}

static const char *first_word_choice(size_t i)
{
    return cli_word(NULL, i);
}

static const char *generate_choice(size_t i)
{
    static const char *const choices[] = {"man", "bash-completion"};

    return i < ARRAY_SIZE(choices) ? choices[i] : NULL;
}

static const char *watchdog_choice(size_t i)
{
    static const char *const choices[] = {"reset", "poweroff", "none"};

    return i < ARRAY_SIZE(choices) ? choices[i] : NULL;
}

static const char *kind_choice(size_t i)
{
    static const char *const choices[] = {"vm", "container"};

    return i < ARRAY_SIZE(choices) ? choices[i] : NULL;
}

static const struct cli_argument run_arguments[] = {
    {.name = "IMAGE",
     .type = CLI_STRING,
     .positional = true,
     .listed_by = "image ls --quiet",
     .help = "The image that the guest is made from: 'tabique image ls' lists them. It gets a disk of its "
             "own over the "
             "image's, which stays with it until it is removed."},
    {.name = "COMMAND",
     .kind = "container",
     .type = CLI_STRING,
     .positional = true,
     .repeatable = true,
     .help = "What to run in a container instead of what its image says, with its arguments, after '--'."},
    {.name = "kind",
     .type = CLI_ENUM,
     .metavar = "KIND",
     .fallback = "vm",
     .choice = kind_choice,
     .help = "vm, a virtual machine; or container: programs on the host's kernel, with files, processes and "
             "a network of "
             "their own."},
    {.name = "name",
     .type = CLI_STRING,
     .metavar = "NAME",
     .check = cli_check_guest_name,
     .help = "The guest's name: letters, digits, '-', '_' and '.'. One is made up if none is given."},
    {.name = "detach",
     .letter = 'd',
     .type = CLI_BOOL,
     .help = "Run it in the background. Its name is printed when it runs; 'tabique console NAME' is its "
             "console."},
    {.name = "rm",
     .type = CLI_BOOL,
     .help = "Remove the guest when it ends. In the foreground a guest with --kernel and without --name is "
             "removed in "
             "any case."},
    {.name = "restart",
     .type = CLI_STRING,
     .metavar = "POLICY",
     .fallback = "no",
     .check = cli_check_restart,
     .help = "Whether to start it again when it ends: no; on-failure, when its exit status is not 0 "
             "(on-failure:N: at most N times in a row); always and unless-stopped, whatever the end. After a "
             "'stop', a "
             "'kill' or Ctrl-] it stays ended. When the host has started, 'start --all' starts those with "
             "always, and "
             "with unless-stopped those that nobody stopped. The time before a restart grows from 0.1 s to a "
             "minute while its "
             "runs are short."},
    {.name = "firmware",
     .kind = "vm",
     .type = CLI_PATH,
     .metavar = "bios|FILE",
     .help =
         "Start with a firmware, which boots from a disk, instead of a kernel: bios is the distribution's "
         "SeaBIOS (package seabios), FILE a flat image that is mapped so that it ends at 4 GiB. bios is the "
         "default when there is a disk and no kernel."},
    {.name = "firmware-log",
     .kind = "vm",
     .type = CLI_PATH,
     .metavar = "FILE",
     .help = "Append what the firmware logs (to port 0x402) to this file."},
    {.name = "kernel",
     .kind = "vm",
     .type = CLI_PATH,
     .metavar = "FILE",
     .help = "The kernel: a Linux bzImage, an ELF file with a PVH entry note, or a Multiboot 1 kernel. Which "
             "one it is, is told from its content."},
    {.name = "initrd",
     .kind = "vm",
     .type = CLI_PATH,
     .metavar = "FILE",
     .help = "The initial RAM disk given to the kernel."},
    {.name = "append",
     .kind = "vm",
     .type = CLI_STRING,
     .metavar = "TEXT",
     .help = "The kernel's command line."},
    {.name = "memory",
     .type = CLI_SIZE,
     .metavar = "SIZE",
     .fallback = "512M",
     .min = GUEST_MEMORY_MIN,
     .max = GUEST_MEMORY_MAX,
     .multiple = GUEST_PAGE_SIZE,
     .help = "The guest's RAM. The host's memory is used only as the guest touches its own. Of a container "
             "the most that "
             "it may use; without it there is no limit."},
    {.name = "cpus",
     .type = CLI_DECIMAL,
     .metavar = "N",
     .fallback = "1",
     .min = 10,
     .max = 4096000,
     .help = "How many virtual processors the guest has. Of a container: the time of how many processors it "
             "may use, such as 1.5; without it there is no limit."},
    {.name = "engine",
     .kind = "vm",
     .type = CLI_ENUM,
     .metavar = "ENGINE",
     .fallback = "auto",
     .choice = engine_choice,
     .help =
         "Who executes the guest's instructions: kvm is the processor's own virtualization (VT-x, AMD-V), "
         "soft is Tabique's processor in software and needs none. auto takes the first that this host can "
         "run; 'tabique check' tells which."},
    {.name = "disk",
     .kind = "vm",
     .type = CLI_STRING,
     .metavar = "FILE[,OPTION...]",
     .repeatable = true,
     .check = cli_check_disk,
     .help =
         "A disk for the guest: an image file or a block device. May be given more than once; Linux calls "
         "them /dev/vda, /dev/vdb and so on, in this order. Options: format=raw, qcow2, vdi, vhd, vhdx or "
         "vmdk "
         "(told by "
         "the "
         "file's content if it is not given), readonly, copy-on-read (what is read of the files that it is "
         "based on is "
         "copied into it, and read there the next time), serial=TEXT (20 characters at most; the guest finds "
         "the disk by it), secret-file=FILE (whose bytes open an encrypted disk), bps=RATE, bps-read, "
         "bps-write (bytes a second), iops=N, "
         "iops-read, iops-write (requests a second), bps-burst and iops-burst (what may come at once after a "
         "pause). Only one virtual machine "
         "may write an image at a time. A comma in the file's name "
         "is written twice."},
    {.name = "cloud-init",
     .kind = "vm",
     .type = CLI_STRING,
     .metavar = "FILE[,OPTION...]",
     .check = cli_check_cloud_init,
     .help = "What a cloud image is to do at its first boot: user-data for cloud-init, which is "
             "#cloud-config or a "
             "script. The guest finds it on a further, read-only disk (the NoCloud way). Options: "
             "meta-data=FILE, "
             "network-config=FILE. A comma in a file's name is written twice."},
    {.name = "debug-exit",
     .kind = "vm",
     .type = CLI_BOOL,
     .help = "Let the guest leave by writing a value to port 0xF4. The exit status is (value << 1) | 1, as "
             "with QEMU's isa-debug-exit."},
    {.name = "vsock",
     .kind = "vm",
     .type = CLI_PATH,
     .metavar = "PATH",
     .help = "Let programs of host and guest talk by sockets (AF_VSOCK in the guest). The Unix socket PATH "
             "is made; who "
             "connects there and sends 'CONNECT PORT' and a newline is joined to that port of the guest, and "
             "told 'OK' with "
             "a number. What the guest connects to at CID 2 is the socket PATH_PORT, where a program of the "
             "host listens."},
    {.name = "vsock-cid",
     .kind = "vm",
     .type = CLI_UINT,
     .metavar = "N",
     .fallback = "3",
     .min = VSOCK_CID_MIN,
     .max = VSOCK_CID_MAX,
     .help = "The guest's address among sockets of that kind."},
    {.name = "balloon",
     .kind = "vm",
     .type = CLI_SIZE,
     .metavar = "SIZE",
     .fallback = "0",
     .max = GUEST_MEMORY_MAX,
     .multiple = GUEST_PAGE_SIZE,
     .help = "How much of its RAM the guest is to give back to the host at first, by the driver of its "
             "memory balloon. "
             "Pages that the guest frees go back without being asked for."},
    {.name = "watchdog",
     .kind = "vm",
     .type = CLI_ENUM,
     .metavar = "ACTION",
     .fallback = "reset",
     .choice = watchdog_choice,
     .help = "What to do when a guest that has started its watchdog does not answer in time: restart it, "
             "switch it "
             "off (exit status 5), or only tell of it."},
    {.name = "net",
     .type = CLI_STRING,
     .metavar = "NETWORK",
     .repeatable = true,
     .help =
         "A network card, and where it leads; more of them make more cards. user (if nothing is given): "
         "through connections of this host, with DHCP and DNS, needing no privileges; the guest is "
         "10.0.2.15, the host 10.0.2.2; user,restrict: the same, but the guest reaches nothing and only its "
         "published ports work. tap=INTERFACE: a tap interface of the host; tap=INTERFACE,create makes it "
         "first. none: no card. A container has one network: user, none, or host, which is this host's own."},
    {.name = "mac",
     .kind = "vm",
     .type = CLI_STRING,
     .metavar = "ADDRESS",
     .repeatable = true,
     .help =
         "The address of a network card, such as 52:54:00:12:34:56; the first is for the first --net, and so "
         "on. Without it, one is made that stays the same."},
    {.name = "publish",
     .type = CLI_STRING,
     .metavar = "[udp:][ADDRESS:]HOST:GUEST",
     .repeatable = true,
     .help =
         "Connections to port HOST of this host (at ADDRESS only, if that is given) go to port GUEST of the "
         "guest. For the user network. May be given more than once."},
    {.name = "module",
     .kind = "vm",
     .type = CLI_STRING,
     .metavar = "FILE[=TEXT]",
     .repeatable = true,
     .help = "A module for a Multiboot or PVH kernel, with its command line after the '='. May be given more "
             "than once; the kernel sees them in this order."},
    {.name = "pids",
     .kind = "container",
     .type = CLI_UINT,
     .metavar = "N",
     .min = 1,
     .max = 4194304,
     .help = "How many processes and threads the container may have."},
    {.name = "io-weight",
     .kind = "container",
     .type = CLI_UINT,
     .metavar = "N",
     .min = 10,
     .max = 1000,
     .help = "The container's share of disks that several want, against 100 of others; 10 to 1000."},
    {.name = "volume",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "SOURCE:DESTINATION[:ro]",
     .repeatable = true,
     .help = "Show a directory or file of the host in the container; ro: not to be written to. A SOURCE "
             "without a slash is "
             "the name of a volume, which is made and stays. May be given more than once."},
    {.name = "env",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "NAME=VALUE",
     .repeatable = true,
     .help = "A variable of the program's environment. May be given more than once."},
    {.name = "user",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "USER[:GROUP]",
     .help = "Who the program runs as: names of the container's /etc/passwd and /etc/group, or numbers. "
             "Default: as the "
             "image says, else root."},
    {.name = "workdir",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "DIR",
     .help = "The program's working directory, in the container."},
    {.name = "hostname",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "NAME",
     .help = "The container's host name. Default: the guest's name."},
    {.name = "privileged",
     .kind = "container",
     .type = CLI_BOOL,
     .help = "Take down the walls: all capabilities, devices and system calls. What runs in it can do what "
             "root of the host "
             "can."},
    {.name = "init",
     .kind = "container",
     .type = CLI_BOOL,
     .help = "Start the program by a small first process, which passes signals on and looks after processes "
             "that have lost "
             "their parents."},
    {.name = "read-only",
     .kind = "container",
     .type = CLI_BOOL,
     .help = "Nothing of the root file system can be changed; volumes can."},
    {.name = "cap-add",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "CAPABILITY",
     .repeatable = true,
     .help = "A capability more, such as NET_ADMIN, or ALL. May be given more than once."},
    {.name = "cap-drop",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "CAPABILITY",
     .repeatable = true,
     .help =
         "A capability less, or ALL, of which --cap-add then gives some back. May be given more than once."},
    {.name = "security-opt",
     .kind = "container",
     .type = CLI_STRING,
     .metavar = "OPTION",
     .repeatable = true,
     .help =
         "no-new-privileges: set-id programs give nobody more rights. seccomp=unconfined: all system calls; "
         "seccomp=FILE: those of a profile. apparmor=PROFILE, label=LABEL: of these security modules. "
         "mask=PATH[:PATH...] hides more, unmask=PATH[:PATH...] shows what is hidden or read-only by itself "
         "(a shell's pattern, or ALL), systempaths=unconfined all of it."},
};

static const struct cli_status run_statuses[] = {
    {"0", "the guest powered off; of a container: its program's own"},
    {"1", "the virtual machine could not be built or started; the message says why"},
    {"3", "the guest reported a panic"},
    {"4", "the engine could not go on; the message says why"},
    {"5", "the guest's watchdog expired (--watchdog poweroff only)"},
    {"(value << 1) | 1", "the guest left through the debug-exit port (low eight bits; --debug-exit only)"},
    {"126", "the program of the container can't be executed"},
    {"127", "the program of the container is not there"},
    {"130", "you left with Ctrl-] or an interrupt"},
    {"128 + N", "signal N ended it: 143 after SIGTERM, 129 after SIGHUP"},
};

static const struct cli_argument check_arguments[] = {
    {.name = "json", .type = CLI_BOOL, .help = "Print one JSON object, for programs."},
};

static const struct cli_status check_statuses[] = {
    {"0", "virtual machines can run: there is an engine for them"},
    {"1", "no engine can run on this host"},
};

static const char *template_choice(size_t i)
{
    return i == 0 ? "debian" : NULL;
}

static const char *suite_choice(size_t i)
{
    static const char *const choices[] = {"bookworm", "trixie"};

    return i < ARRAY_SIZE(choices) ? choices[i] : NULL;
}

static const char *arch_choice(size_t i)
{
    return i == 0 ? "amd64" : NULL;
}

static const struct cli_argument image_build_arguments[] = {
    {.name = "WHAT",
     .type = CLI_ENUM,
     .positional = true,
     .required = true,
     .choice = template_choice,
     .help = "What to build: debian."},
    {.name = "name",
     .type = CLI_STRING,
     .metavar = "NAME",
     .fallback = "debian",
     .help =
         "The image's name. If there is one of this name, the name goes over to the new image, and guests "
         "that are built on the old one keep that."},
    {.name = "suite",
     .type = CLI_ENUM,
     .metavar = "SUITE",
     .fallback = "bookworm",
     .choice = suite_choice,
     .help = "Debian's release."},
    {.name = "size",
     .type = CLI_SIZE,
     .metavar = "SIZE",
     .fallback = "4G",
     .min = IMAGE_DISK_MINIMUM,
     .max = IMAGE_DISK_MAXIMUM,
     .multiple = 1 << 20,
     .help = "The size of the disk. The host gives what is written to it only."},
    {.name = "package",
     .type = CLI_STRING,
     .metavar = "PACKAGE",
     .repeatable = true,
     .help = "One more package to install. May be given more than once."},
    {.name = "arch",
     .type = CLI_ENUM,
     .metavar = "ARCH",
     .fallback = "amd64",
     .choice = arch_choice,
     .help = "The processor architecture, as Debian calls it."},
    {.name = "mirror",
     .type = CLI_STRING,
     .metavar = "URL",
     .help = "Where packages come from. Default: the mirror that this host's apt uses, else deb.debian.org."},
    {.name = "rebuild",
     .type = CLI_BOOL,
     .help = "Build even if the same image is there, to take in what the distribution has updated since."},
};

static const struct cli_status image_build_statuses[] = {
    {"0", "the image is there"},
    {"1", "it could not be built; the message says why"},
    {"130", "you interrupted it; nothing has changed"},
};

static const struct cli_argument image_import_arguments[] = {
    {.name = "FILE",
     .type = CLI_PATH,
     .positional = true,
     .required = true,
     .help = "A disk: raw or qcow2, as it is or compressed by gzip, bzip2, xz or zstd. Or a container image: "
             "oci:DIR[:TAG], an OCI image layout; oci-archive:FILE[:TAG], one in a tar archive; "
             "docker-archive:FILE[:NAME], what 'docker save' and 'podman save' make."},
    {.name = "name",
     .type = CLI_STRING,
     .metavar = "NAME",
     .help =
         "The image's name. Default: the one that a container image has in FILE, without registry, else the "
         "file's, without its endings."},
    {.name = "format",
     .type = CLI_ENUM,
     .metavar = "FORMAT",
     .choice = disk_format_name,
     .help = "The disk's format. It is told by the content if it is not given."},
};

static const struct cli_status image_import_statuses[] = {
    {"0", "the image is there"},
    {"1", "it could not be imported; the message says why"},
    {"130", "you interrupted it; nothing has changed"},
};

static const struct cli_argument image_export_arguments[] = {
    {.name = "IMAGE",
     .type = CLI_STRING,
     .positional = true,
     .required = true,
     .listed_by = "image ls --quiet",
     .help = "The image's name, or the beginning of its id."},
    {.name = "TARGET",
     .type = CLI_STRING,
     .positional = true,
     .required = true,
     .help = "Where to: oci:DIR[:TAG], an OCI image layout, which may have other images already; "
             "oci-archive:FILE[:TAG], "
             "one in a tar archive; docker-archive:FILE[:NAME], what 'docker load' and 'podman load' read. "
             "TAG and NAME "
             "are the image's name if they are not given."},
};

static const struct cli_argument image_ls_arguments[] = {
    {.name = "json", .type = CLI_BOOL, .help = "Print one JSON array, for programs."},
    {.name = "quiet", .letter = 'q', .type = CLI_BOOL, .help = "Print the names only, a line each."},
};

static const struct cli_argument image_name_arguments[] = {
    {.name = "IMAGE",
     .type = CLI_STRING,
     .positional = true,
     .required = true,
     .help = "The image's name, or the beginning of its id."},
};

static const struct cli_argument image_names_arguments[] = {
    {.name = "IMAGE",
     .type = CLI_STRING,
     .positional = true,
     .required = true,
     .repeatable = true,
     .help = "The images' names, or the beginnings of their ids."},
};

static const struct cli_status image_statuses[] = {
    {"0", "done"},
    {"1", "it could not be done; the message says why"},
};

static const struct cli_argument help_arguments[] = {
    {.name = "VERB",
     .type = CLI_ENUM,
     .positional = true,
     .choice = first_word_choice,
     .help =
         "The operation to explain, or the first word of several; without it, all of them in a line each."},
    {.name = "SECOND",
     .type = CLI_STRING,
     .positional = true,
     .help = "The operation's second word, if it has one."},
};

static const struct cli_status help_statuses[] = {{"0", "always"}};

static const struct cli_argument generate_arguments[] = {
    {.name = "WHAT",
     .type = CLI_ENUM,
     .positional = true,
     .required = true,
     .choice = generate_choice,
     .help = "man or bash-completion."},
};

/* Arrays with their lengths. */
#define ARGUMENTS(a) .arguments = (a), .n_arguments = ARRAY_SIZE(a)
#define STATUSES(a)  .statuses = (a), .n_statuses = ARRAY_SIZE(a)

static const struct cli_operation operations[] = {
    {.name = "run",
     .summary = "Make a guest and run it, with its console on this terminal",
     .description =
         "Builds a virtual PC, boots an image, a kernel or a disk in it, and connects the guest's console "
         "(its first serial line, and a virtio console where the guest uses one) to standard input and "
         "output. Ends when the guest powers off.\n\n"
         "Or, with --kind container, runs a program on this host's kernel in a root file system of its own, "
         "which is the image's with what the container changes on top. Ends with the program. Volumes that "
         "the image asks for are made with what it has there, and go with the container; its check is run, "
         "and 'ps' and 'inspect' tell what it finds.\n\n"
         "On a terminal every key goes to the guest, Ctrl-C too; Ctrl-] leaves. Input and output may as well "
         "be pipes or files.",
     ARGUMENTS(run_arguments),
     STATUSES(run_statuses),
     .example = "tabique run --kernel vmlinuz --initrd initrd.gz --append console=ttyS0 --memory 1G --cpus 2",
     .run = cli_run},
    {.name = "check",
     .summary = "Tell what this host can do",
     .description =
         "Looks at the processor, at /dev/kvm (which may be there and yet have nothing behind it), at "
         "control groups, namespaces and seccomp, and says of each what was found and, where "
         "something is missing, what to do about it. Changes nothing.",
     ARGUMENTS(check_arguments),
     STATUSES(check_statuses),
     .run = cli_check},
    {.name = "image build",
     .summary = "Build an image from a distribution's packages",
     .description =
         "Makes a Debian for virtual machines, without a boot loader, and for containers: a disk with a file "
         "system, "
         "the "
         "kernel, and a small initial RAM disk. The packages are checked against Debian's keys and kept for "
         "the "
         "next build. The console logs root in without a password, the network has nothing that listens.\n\n"
         "What was built before with the same flags is not built again. Takes no root, where user namespaces "
         "and the package uidmap are there; mounts nothing that others see.",
     ARGUMENTS(image_build_arguments),
     STATUSES(image_build_statuses),
     .example = "tabique image build debian --suite trixie --size 8G --package openssh-server --name web",
     .run = cli_image_build},
    {.name = "image import",
     .summary = "Take a disk that boots by itself, or a container image, into the store",
     .description =
         "Copies a disk image with a boot loader of its own, such as a distribution's cloud image; "
         "guests start it through the firmware. All of it is read and checked on the way, by a "
         "process that can reach nothing else. The file is not needed afterwards.\n\n"
         "Of a container image each layer is copied and unpacked in the same way, once for all images that "
         "have it, and "
         "all digests are checked.",
     ARGUMENTS(image_import_arguments),
     STATUSES(image_import_statuses),
     .example = "tabique image import debian-12-generic-amd64.qcow2 --name cloud",
     .run = cli_image_import},
    {.name = "image export",
     .summary = "Write a container image for other programs",
     .description = "Writes an image that containers can be made from, as it came or was built.",
     ARGUMENTS(image_export_arguments),
     STATUSES(image_statuses),
     .example = "tabique image export web docker-archive:web.tar:registry.example/web:1.2",
     .run = cli_image_export},
    {.name = "image ls",
     .summary = "List the images",
     .description = "Prints a line for each image: its name, its id, what kinds of guests it is for, what it "
                    "is from, the size of "
                    "its disk as guests see it or of the files in its layers, what it takes on this host "
                    "(layers that several "
                    "images have in each of them), and how many guests are built on it. One "
                    "without a name was replaced under guests that still need it; it goes with the last of "
                    "them.",
     ARGUMENTS(image_ls_arguments),
     STATUSES(image_statuses),
     .run = cli_image_ls},
    {.name = "image inspect",
     .summary = "Print all that is known of an image, as JSON",
     .description = "Prints one JSON object, with the paths of the image's files. These files must not be "
                    "written to: guests are built on them.",
     ARGUMENTS(image_name_arguments),
     STATUSES(image_statuses),
     .run = cli_image_inspect},
    {.name = "image rm",
     .summary = "Remove images",
     .description =
         "Removes them in this order, and ends at the first that can't be removed: one that guests "
         "are built on is kept, and the message names them.",
     ARGUMENTS(image_names_arguments),
     STATUSES(image_statuses),
     .run = cli_image_rm},
    {.name = "help",
     .summary = "Explain an operation",
     .description = "The same as 'tabique VERB --help'.",
     ARGUMENTS(help_arguments),
     STATUSES(help_statuses),
     .run = cli_help},
    {.name = "generate",
     .summary = "Print a file made from the table of operations",
     .description = "Used by the build.",
     ARGUMENTS(generate_arguments),
     .hidden = true,
     .run = cli_generate},
};

/* The guests' verbs come after the first, which makes guests; the disks' after the images'. */
const struct cli_operation *cli_operation(size_t i)
{
    const size_t last = 2; /* of those here: help, generate */

    if (i == 0)
        return &operations[0];
    if (--i < cli_n_guest_operations)
        return &cli_guest_operations[i];
    i -= cli_n_guest_operations;
    if (i < cli_n_snapshot_operations)
        return &cli_snapshot_operations[i];
    i -= cli_n_snapshot_operations;
    if (++i < ARRAY_SIZE(operations) - last)
        return &operations[i];
    if (i - (ARRAY_SIZE(operations) - last) < cli_n_disk_operations)
        return &cli_disk_operations[i - (ARRAY_SIZE(operations) - last)];
    i -= cli_n_disk_operations;
    return i < ARRAY_SIZE(operations) ? &operations[i] : NULL;
}

const struct cli_group cli_groups[] = {
    {.name = "image", .summary = "Images: what guests are made from"},
    {.name = "disk", .summary = "Disks: image files of every format"},
};

const size_t cli_n_groups = ARRAY_SIZE(cli_groups);

const struct cli_operation *cli_find_operation(const char *name)
{
    const struct cli_operation *op;

    for (size_t i = 0; (op = cli_operation(i)); i++)
        if (strcmp(op->name, name) == 0)
            return op;
    return NULL;
}

const struct cli_group *cli_find_group(const char *name)
{
    for (size_t i = 0; i < cli_n_groups; i++)
        if (strcmp(cli_groups[i].name, name) == 0)
            return &cli_groups[i];
    return NULL;
}

const struct cli_group *cli_group_of(const struct cli_operation *operation)
{
    size_t len = strcspn(operation->name, " ");

    for (size_t i = 0; operation->name[len] && i < cli_n_groups; i++)
        if (strlen(cli_groups[i].name) == len && memcmp(cli_groups[i].name, operation->name, len) == 0)
            return &cli_groups[i];
    return NULL;
}

const char *cli_verb_of(const struct cli_operation *operation)
{
    const char *space = strchr(operation->name, ' ');

    return space ? space + 1 : operation->name;
}

const char *cli_word(const struct cli_group *group, size_t i)
{
    const struct cli_operation *op;

    for (size_t n = 0; (op = cli_operation(n)); n++)
        if (!op->hidden && cli_group_of(op) == group && i-- == 0)
            return cli_verb_of(op);
    return !group && i < cli_n_groups ? cli_groups[i].name : NULL;
}
