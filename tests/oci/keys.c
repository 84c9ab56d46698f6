/* SPDX-License-Identifier: GPL-2.0-or-later */
/* Runs in a container: `keys find NAME` looks for a key in reach of the session keyring, `keys add NAME` adds
 * one outside and executes what follows. */
#include <errno.h>
#include <linux/keyctl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

int main(int argc, char **argv)
{
    if (argc >= 3 && strcmp(argv[1], "find") == 0) {
        long key = syscall(SYS_keyctl, KEYCTL_SEARCH, KEY_SPEC_SESSION_KEYRING, "user", argv[2], 0);

        printf("%s\n", key >= 0 ? "found" : strerror(errno));
        return 0;
    }
    if (argc < 4 || strcmp(argv[1], "add") != 0)
        return 2;
    if (syscall(SYS_keyctl, KEYCTL_JOIN_SESSION_KEYRING, NULL) < 0 ||
        syscall(SYS_add_key, "user", argv[2], "secret", 6, KEY_SPEC_SESSION_KEYRING) < 0) {
        perror("keys");
        return 77;
    }
    execvp(argv[3], argv + 3);
    perror(argv[3]);
    return 127;
}
