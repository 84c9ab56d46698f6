/* SPDX-License-Identifier: GPL-2.0-or-later */
/*
 * The database: opening it, its schema, transactions, statements. In WAL mode, so that readers never wait for
 * a writer; writers wait for each other. Called by guest.c, the supervisor and `events`. A connection belongs
 * to one thread; other processes are kept apart by SQLite's locks.
 */
#include "base/cleanup.h"
#include "base/error.h"
#include "guest/registry_priv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>

#define FILE_NAME      "tabique.db"
#define APPLICATION_ID 0x54616269 /* "Tabi" */
#define VERSION        3
#define LOG_PAGES      128
#define BUSY_MS        20000
#define RETRY_MS       5

/* Each entry takes the database from the version of its index to the next. */
static const char *const migrations[VERSION] = {
    "CREATE TABLE guests ("
    " name TEXT PRIMARY KEY NOT NULL, config TEXT NOT NULL, state INTEGER NOT NULL,"
    " supervisor INTEGER NOT NULL, vm INTEGER NOT NULL, exit_status INTEGER NOT NULL, reason TEXT NOT NULL,"
    " engine TEXT NOT NULL, created INTEGER NOT NULL, started INTEGER NOT NULL, ended INTEGER NOT NULL,"
    " restarts INTEGER NOT NULL, transient INTEGER NOT NULL) WITHOUT ROWID;"
    "CREATE TABLE events ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, time INTEGER NOT NULL, guest TEXT NOT NULL, type TEXT NOT NULL,"
    " details TEXT NOT NULL);",
    "ALTER TABLE guests ADD COLUMN by_hand INTEGER NOT NULL DEFAULT 0;",
    "CREATE TABLE layers ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, parent INTEGER NOT NULL, guest TEXT NOT NULL,"
    " disk INTEGER NOT NULL, path TEXT NOT NULL, format TEXT NOT NULL, active INTEGER NOT NULL);"
    "CREATE INDEX layers_guest ON layers (guest);"
    "CREATE INDEX layers_parent ON layers (parent);"
    "CREATE TABLE snapshots ("
    " id INTEGER PRIMARY KEY AUTOINCREMENT, guest TEXT NOT NULL, name TEXT NOT NULL, description TEXT NOT "
    "NULL,"
    " created INTEGER NOT NULL, UNIQUE (guest, name));"
    "CREATE TABLE snapshot_layers (snapshot INTEGER NOT NULL, layer INTEGER NOT NULL,"
    " PRIMARY KEY (snapshot, layer)) WITHOUT ROWID;"
    "CREATE INDEX snapshot_layers_layer ON snapshot_layers (layer);",
};

int64_t registry_now(void)
{
    struct timespec t;

    clock_gettime(CLOCK_REALTIME, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

int registry_error(struct registry *registry, const char *what, struct error **err)
{
    int code = sqlite3_errcode(registry->db), system = sqlite3_system_errno(registry->db);
    const char *path = registry->path;

    switch (code & 0xff) {
    case SQLITE_FULL:
        return error_set(err, ENOSPC, "%s: '%s': no space left: make room, then try again", what, path);
    case SQLITE_CORRUPT:
    case SQLITE_NOTADB:
        return error_set(
            err, EBADMSG,
            "%s: '%s' is damaged (%s): move it away and Tabique begins a new one; the guests' disks "
            "stay in '%.*s/guests'",
            what, path, sqlite3_errmsg(registry->db), (int)(strrchr(path, '/') - path), path);
    case SQLITE_READONLY:
        return error_set(err, EROFS, "%s: '%s' can't be written: TABIQUE_HOME can name another place", what,
                         path);
    case SQLITE_BUSY:
        return error_set(err, EBUSY, "%s: '%s' is in use by others for more than %d s", what, path,
                         BUSY_MS / 1000);
    case SQLITE_CANTOPEN:
    case SQLITE_IOERR:
    case SQLITE_PERM:
        /* SQLite tells a full disk as an input/output error where it grows its shared memory. */
        if (system == ENOSPC || code == SQLITE_IOERR_SHMSIZE)
            return error_set(err, ENOSPC, "%s: '%s': no space left: make room, then try again", what, path);
        if (system)
            return error_set_errno(err, system, "%s: '%s'", what, path);
        break;
    default:
        break;
    }
    return error_set(err, EIO, "%s: '%s': %s", what, path, sqlite3_errmsg(registry->db));
}

/* The connection's own statements, which stay with it: to read SQL anew takes longer than to run most of it.
 */
static sqlite3_stmt *find_idle(const struct registry *registry, const char *sql)
{
    sqlite3_stmt *s = NULL;

    while ((s = sqlite3_next_stmt(registry->db, s)) && (sqlite3_stmt_busy(s) || strcmp(sqlite3_sql(s), sql)))
        ;
    return s;
}

static int vprepare(struct registry *registry, sqlite3_stmt **out, struct error **err, const char *sql,
                    const char *types, va_list args)
{
    sqlite3_stmt *s = find_idle(registry, sql);

    if (!s && sqlite3_prepare_v2(registry->db, sql, -1, &s, NULL) != SQLITE_OK)
        return registry_error(registry, "state", err);
    for (int i = 0; types[i]; i++) {
        int rc = types[i] == 's'
                     ? sqlite3_bind_text(s, i + 1, va_arg(args, const char *), -1, SQLITE_TRANSIENT)
                     : sqlite3_bind_int64(s, i + 1, va_arg(args, int64_t));
        if (rc != SQLITE_OK)
            return registry_error(registry, "state", err);
    }
    *out = s;
    return 0;
}

int registry_prepare(struct registry *registry, sqlite3_stmt **out, struct error **err, const char *sql,
                     const char *types, ...)
{
    va_list args;

    va_start(args, types);
    int rc = vprepare(registry, out, err, sql, types, args);
    va_end(args);
    return rc;
}

int registry_execute(struct registry *registry, struct error **err, const char *sql, const char *types, ...)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    va_list args;

    va_start(args, types);
    int rc = vprepare(registry, &s, err, sql, types, args);
    va_end(args);
    if (rc)
        return rc;
    return sqlite3_step(s) == SQLITE_DONE ? 0 : registry_error(registry, "state", err);
}

static int read_number(struct registry *registry, const char *sql, int64_t *out, struct error **err)
{
    cleanup_statement sqlite3_stmt *s = NULL;
    int rc = registry_prepare(registry, &s, err, sql, "");

    if (rc)
        return rc;
    if (sqlite3_step(s) != SQLITE_ROW)
        return registry_error(registry, "state", err);
    *out = sqlite3_column_int64(s, 0);
    return 0;
}

int registry_begin(struct registry *registry, struct error **err)
{
    int rc = registry_execute(registry, err, "BEGIN IMMEDIATE", "");

    registry->in_transaction = rc == 0;
    return rc;
}

int registry_commit(struct registry *registry, struct error **err)
{
    int rc = registry_execute(registry, err, "COMMIT", "");

    /* SQLite keeps the transaction when its end fails, a full disk for one. */
    if (rc)
        sqlite3_exec(registry->db, "ROLLBACK", NULL, NULL, NULL);
    registry->in_transaction = false;
    return rc;
}

/* Some other program's database under our name is left alone. */
static int check_version(struct registry *registry, int64_t *version, struct error **err)
{
    int64_t id;
    int rc = read_number(registry, "PRAGMA application_id", &id, err);

    if (rc == 0)
        rc = read_number(registry, "PRAGMA user_version", version, err);
    if (rc)
        return rc;
    if (*version && id != APPLICATION_ID)
        return error_set(err, EBADMSG, "state: '%s' is no database of Tabique's: move it away",
                         registry->path);
    if (*version > VERSION)
        return error_set(
            err, ENOTSUP,
            "state: '%s' was written by a newer Tabique (version %lld of its form, %d is known here)",
            registry->path, (long long)*version, VERSION);
    return 0;
}

static int migrate(struct registry *registry, struct error **err)
{
    int64_t version;
    int rc = registry_begin(registry, err);

    if (rc == 0)
        rc = check_version(registry, &version, err); /* another process may have been first */
    for (; rc == 0 && version < VERSION; version++)
        if (sqlite3_exec(registry->db, migrations[version], NULL, NULL, NULL) != SQLITE_OK)
            rc = registry_error(registry, "state", err);
    if (rc == 0) {
        char sql[96];
        snprintf(sql, sizeof(sql), "PRAGMA application_id=%d; PRAGMA user_version=%d", APPLICATION_ID,
                 VERSION);
        if (sqlite3_exec(registry->db, sql, NULL, NULL, NULL) != SQLITE_OK)
            rc = registry_error(registry, "state", err);
    }
    return rc ? rc : registry_commit(registry, err);
}

static void close_database(sqlite3 *db)
{
    for (sqlite3_stmt *s; db && (s = sqlite3_next_stmt(db, NULL));)
        sqlite3_finalize(s);
    sqlite3_close(db);
}

/*
 * Where nothing can be written, SQLite can't make the shared memory of a WAL: then, and only then, it reads
 * the file as one that nobody changes.
 */
static int connect(struct registry *registry, enum registry_access access)
{
    cleanup_free char *uri = NULL;
    int flags = access == REGISTRY_READ    ? SQLITE_OPEN_READONLY
                : access == REGISTRY_WRITE ? SQLITE_OPEN_READWRITE
                                           : SQLITE_OPEN_READWRITE | SQLITE_OPEN_CREATE;
    if (access == REGISTRY_CREATE) {
        /* SQLite would make it for all to read; its other files get the same mode. */
        int fd = open(registry->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
        cleanup_close_fn(&fd);
    }
    int rc = sqlite3_open_v2(registry->path, &registry->db, flags | SQLITE_OPEN_NOMUTEX, NULL);

    if (rc == SQLITE_OK)
        rc = sqlite3_busy_timeout(registry->db, BUSY_MS);
    if (rc == SQLITE_OK)
        rc = sqlite3_exec(registry->db, "PRAGMA schema_version", NULL, NULL, NULL);
    if (rc != SQLITE_CANTOPEN || access != REGISTRY_READ)
        return rc;
    cleanup_free char *escaped = malloc(3 * strlen(registry->path) + 1);
    if (!escaped)
        return SQLITE_NOMEM;
    /* In a URI some bytes have a meaning. */
    char *to = escaped;
    for (const char *p = registry->path; *p; p++)
        to += sprintf(to, strchr("?#%", *p) ? "%%%02X" : "%c", (unsigned char)*p);
    if (asprintf(&uri, "file:%s?immutable=1", escaped) < 0)
        return SQLITE_NOMEM;
    sqlite3_close(registry->db);
    return sqlite3_open_v2(uri, &registry->db, SQLITE_OPEN_READONLY | SQLITE_OPEN_NOMUTEX | SQLITE_OPEN_URI,
                           NULL);
}

/*
 * Two that change a new file's journal at once would wait for each other's lock: SQLite refuses one of them
 * at once, whatever its busy timeout. That one comes again.
 */
static int use_wal(struct registry *registry)
{
    for (unsigned waited = 0;; waited += RETRY_MS) {
        int rc = sqlite3_exec(registry->db, "PRAGMA journal_mode=WAL", NULL, NULL, NULL);

        if (rc != SQLITE_BUSY || waited >= BUSY_MS)
            return rc;
        sqlite3_sleep(RETRY_MS);
    }
}

static int set_up(struct registry *registry, enum registry_access access, struct error **err)
{
    int64_t version;

    if (connect(registry, access) != SQLITE_OK)
        return registry_error(registry, "state", err);
    /* The log file stays: making and removing it would cost more than all else that a command does. */
    sqlite3_db_config(registry->db, SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1, NULL);
    if (access == REGISTRY_CREATE && use_wal(registry) != SQLITE_OK)
        return registry_error(registry, "state", err);
    /* A loss of power may take the last changes, and with them nothing that still runs; never the rest. */
    sqlite3_exec(registry->db, "PRAGMA synchronous=NORMAL", NULL, NULL, NULL);
    /* Who opens it when nobody else has it reads all of the log. */
    sqlite3_wal_autocheckpoint(registry->db, LOG_PAGES);
    int rc = check_version(registry, &version, err);
    if (rc)
        return rc;
    if (version == VERSION)
        return 0;
    if (access != REGISTRY_READ)
        return migrate(registry, err);
    if (!version)
        return -ENOENT; /* somebody is about to make it */
    /* Who only looks finds what a newer Tabique would have written, and so does that first. */
    close_database(steal_ptr(registry->db));
    return set_up(registry, REGISTRY_WRITE, NULL) ? error_set(err, ENOTSUP,
                                                              "state: '%s' is of an older form and can't be "
                                                              "renewed: run 'tabique ps' as who may write it",
                                                              registry->path)
                                                  : 0;
}

static void close_now(struct registry *registry)
{
    close_database(registry->db);
    free(registry->path);
    free(registry);
}

static int open_new(struct registry **out, const char *directory, enum registry_access access,
                    struct error **err)
{
    struct registry *registry = calloc(1, sizeof(*registry));
    struct stat st;

    if (!registry || asprintf(&registry->path, "%s/" FILE_NAME, directory) < 0) {
        free(registry);
        return error_set_errno(err, ENOMEM, "state");
    }
    int rc = 0;
    if (access != REGISTRY_CREATE && stat(registry->path, &st) < 0) {
        rc = -errno;
        if (rc != -ENOENT && rc != -ENOTDIR)
            error_set_errno(err, -rc, "state: '%s'", registry->path);
        else
            rc = -ENOENT;
    }
    if (rc == 0)
        rc = set_up(registry, access, err);
    if (rc) {
        close_now(registry);
        return rc;
    }
    *out = registry;
    return 0;
}

/* ---- a connection that stays ---- */

static struct {
    unsigned users;
    struct registry *idle;
} kept;

/* Whether it is one to the file that is there now, with that right. */
static bool serves(const struct registry *registry, const char *directory, enum registry_access access)
{
    size_t n = strlen(directory);
    struct stat st;

    return (registry->writes || access == REGISTRY_READ) && strncmp(registry->path, directory, n) == 0 &&
           strcmp(registry->path + n, "/" FILE_NAME) == 0 && stat(registry->path, &st) == 0 &&
           st.st_dev == registry->device && st.st_ino == registry->inode;
}

/* One that may stay is for writing too, if that is possible. */
static int open_to_keep(struct registry **out, const char *directory, enum registry_access access,
                        struct error **err)
{
    struct registry *registry = NULL;
    struct stat st;
    int rc = access == REGISTRY_READ ? open_new(&registry, directory, REGISTRY_WRITE, NULL) : -EACCES;

    if (rc == 0)
        access = REGISTRY_WRITE;
    else
        rc = open_new(&registry, directory, access, err);
    if (rc)
        return rc;
    if (stat(registry->path, &st) == 0) {
        registry->device = st.st_dev;
        registry->inode = st.st_ino;
        registry->writes = access != REGISTRY_READ;
    }
    *out = registry;
    return 0;
}

void registry_keep(void)
{
    kept.users++;
}

void registry_let_go(void)
{
    if (--kept.users == 0 && kept.idle)
        close_now(steal_ptr(kept.idle));
}

int registry_open(struct registry **out, const char *directory, enum registry_access access,
                  struct error **err)
{
    if (!kept.users)
        return open_new(out, directory, access, err);
    if (!kept.idle || !serves(kept.idle, directory, access))
        return open_to_keep(out, directory, access, err);
    *out = steal_ptr(kept.idle);
    return 0;
}

void registry_close(struct registry *registry)
{
    if (!registry)
        return;
    if (registry->in_transaction)
        sqlite3_exec(registry->db, "ROLLBACK", NULL, NULL, NULL);
    registry->in_transaction = false;
    if (kept.users && !kept.idle && registry->inode)
        kept.idle = registry;
    else
        close_now(registry);
}
