/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * /init of the initial RAM disk of built images: loads the few modules that the root disk needs, waits for
 * the disk, makes it the root and hands over to its /sbin/init. A program of its own, linked statically and
 * carried by `tabique` (initrd.c); runs as process 1 of the guest. It stands in for a whole initramfs with
 * udev because the hardware is known.
 *
 * From the kernel's command line: root=/dev/NAME, rootfstype= (ext4), rw, ro (the default), init=.
 */
#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/reboot.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#define DISK_TIMEOUT_S 60

/* Process 1 must not end: the kernel would panic and tell less. */
static __attribute__((noreturn)) void fail(const char *what)
{
    int kmsg = open("/dev/kmsg", O_WRONLY | O_CLOEXEC);

    dprintf(kmsg >= 0 ? kmsg : 2, "<2>initrd: %s: %s\n", what, strerror(errno));
    for (;;)
        pause();
}

/* The value of the last `name=` on the command line, or `fallback`. With `flag`, the word itself. */
static const char *argument(char *line, const char *name, const char *fallback)
{
    static char value[256];
    const char *found = NULL;
    size_t len = strlen(name);

    for (char *p = line; *p;) {
        size_t word = strcspn(p, " \n");
        if (word > len && strncmp(p, name, len) == 0 && p[len] == '=' && word - len - 1 < sizeof(value)) {
            memcpy(value, p + len + 1, word - len - 1);
            value[word - len - 1] = '\0';
            found = value;
        }
        p += word;
        p += strspn(p, " \n");
    }
    return found ? strdup(found) : fallback;
}

static bool has_word(const char *line, const char *name)
{
    size_t len = strlen(name);

    for (const char *p = line; *p;) {
        size_t word = strcspn(p, " \n");
        if (word == len && strncmp(p, name, len) == 0)
            return true;
        p += word;
        p += strspn(p, " \n");
    }
    return false;
}

/* In the order of /modules/order, each after what it needs. */
static void load_modules(void)
{
    char name[128], path[256];
    FILE *order = fopen("/modules/order", "re");

    while (order && fscanf(order, "%127s", name) == 1) {
        snprintf(path, sizeof(path), "/modules/%s", name);
        int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0 || (syscall(SYS_finit_module, fd, "", 0) < 0 && errno != EEXIST))
            fail(path);
        close(fd);
    }
    if (order)
        fclose(order);
}

static void mount_root(const char *device, const char *type, unsigned long flags)
{
    const struct timespec pause = {.tv_nsec = 5 * 1000 * 1000};

    for (int i = 0;; i++) {
        if (mount(device, "/root", type, flags, NULL) == 0)
            return;
        /* The device comes when its driver has found it. */
        if ((errno != ENOENT && errno != ENXIO) || i >= DISK_TIMEOUT_S * 200)
            fail(device);
        nanosleep(&pause, NULL);
    }
}

/* Whether the kernel has found the file system damaged at some time (ext4's documentation, "The Super Block":
 * s_magic, s_state at 0x38 and 0x3A of what lies at 1024). */
static bool needs_repair(const char *device)
{
    unsigned char super[64];
    int fd = open(device, O_RDONLY | O_CLOEXEC);
    bool damaged = fd >= 0 && pread(fd, super, sizeof(super), 1024) == sizeof(super) && super[0x38] == 0x53 &&
                   super[0x39] == 0xef && (super[0x3a] & 2);

    if (fd >= 0)
        close(fd);
    return damaged;
}

/* By the root's own e2fsck; the root is mounted, but not to be written. */
static void repair(const char *device)
{
    int status = 0;
    pid_t pid = fork();

    if (pid == 0) {
        if (mount("/dev", "/root/dev", NULL, MS_BIND, NULL) == 0 && chroot("/root") == 0 && chdir("/") == 0)
            execl("/sbin/fsck.ext4", "fsck.ext4", "-p", device, NULL);
        _exit(127);
    }
    if (pid > 0)
        waitpid(pid, &status, 0);
    umount("/root/dev");
    /* fsck(8): 2, what is mounted has changed underneath. */
    if (WIFEXITED(status) && (WEXITSTATUS(status) & 2))
        reboot(RB_AUTOBOOT);
}

int main(void)
{
    static char line[4096];

    mkdir("/dev", 0755);
    mkdir("/proc", 0555);
    mkdir("/root", 0755);
    if (mount("dev", "/dev", "devtmpfs", MS_NOSUID, "mode=0755") < 0 && errno != EBUSY)
        fail("/dev");
    if (mount("proc", "/proc", "proc", MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
        fail("/proc");
    int fd = open("/proc/cmdline", O_RDONLY | O_CLOEXEC);
    if (fd < 0 || read(fd, line, sizeof(line) - 1) < 0)
        fail("/proc/cmdline");
    close(fd);
    load_modules();
    const char *init = argument(line, "init", "/sbin/init");
    const char *device = argument(line, "root", "/dev/vda"), *type = argument(line, "rootfstype", "ext4");
    mount_root(device, type, MS_RDONLY);
    if (strcmp(type, "ext4") == 0 && needs_repair(device))
        repair(device);
    if (has_word(line, "rw") && mount(NULL, "/root", NULL, MS_REMOUNT, NULL) < 0)
        fail(device);
    if (umount("/proc") < 0 || mount("/dev", "/root/dev", NULL, MS_MOVE, NULL) < 0)
        fail("/root/dev");
    /* The memory of what the initial RAM disk holds comes back only if it is deleted. */
    unlink("/init");
    for (FILE *order = fopen("/modules/order", "re"); order; fclose(order), order = NULL) {
        char name[128], path[256];
        while (fscanf(order, "%127s", name) == 1) {
            snprintf(path, sizeof(path), "/modules/%s", name);
            unlink(path);
        }
    }
    if (chdir("/root") < 0 || mount(".", "/", NULL, MS_MOVE, NULL) < 0 || chroot(".") < 0 || chdir("/") < 0)
        fail("/root");
    execl(init, init, NULL);
    fail(init);
}
