package main

// example is a file that shows every form there is.
const example = `version = 1

[log]
level = "info"

[socket]
group = "docker"
mode = "0660"

[volume]
linger = "10s"

[pool.remora]

[pool.fast]
driver = "dir"
path = "/srv/fast"
linger = "0s"

[repository.offsite]
url = "s3://backups/web1"
password_file = "/etc/remora/offsite.password"
credentials_file = "/etc/remora/offsite.credentials"

[schedule.nightly]
cron = "30 3 * * *"
jitter = "20m"
volumes = ["db*"]
keep_daily = 7
keep_weekly = 4

[verify.weekly]
cron = "0 4 * * 0"
image = "postgres:17"
command = "pg_verifybackup /data"
`

// configHead takes the mark of generated pages, the path of the file, and the example.
const configHead = `%s# The configuration

Everything has a default, so the daemon runs without any configuration. What is given is taken
from, the last one counts:

1. the default;
2. the file, ` + "`%s`" + ` unless ` + "`--config`" + ` or ` + "`REMORA_CONFIG`" + ` names another;
3. the environment: each key has a variable, as a managed plugin is set by ` + "`docker plugin set KEY=VALUE`" + `
   alone. An empty variable counts as none;
4. flags: ` + "`remora daemon --set KEY=VALUE`" + `.

The file is TOML, and read strictly: a key that does not exist is an error that names file, line,
column and the key that was probably meant. ` + "`remora config check`" + ` says whether the daemon would take it,
` + "`remora config print`" + ` what is in force and where it comes from. After a change, ` + "`remora reload`" + ` (or SIGHUP)
takes the whole file over or, when something in it is wrong, nothing.

` + "```toml" + `
%s` + "```" + `

A file that holds secrets should be readable by root alone; the daemon warns where everybody may read
it. A duration is a number with its unit, such as ` + "`90s`, `5m` or `1h30m`" + `. A mode is octal and stands in quotes.

`

// poolsHead takes the default pool and the default driver.
const poolsHead = `
## Pools

Each table ` + "`[pool.NAME]`" + ` is one more volume driver for engines, called NAME:
` + "`docker volume create -d NAME`" + `. Where there is none, there is one pool ` + "`%s`" + ` with the driver ` + "`%s`" + `. Names have
lower-case letters, digits, ` + "`_`, `.` and `-`" + `, 64 at most, and begin with a letter or digit.

The key KEY of the pool NAME has the variable ` + "`REMORA_POOL_NAME_KEY`" + `, in upper case and with ` + "`_`" + ` for ` + "`.` and `-`" + `.
` + "`REMORA_POOLS=fast,slow`" + ` makes pools that are not in the file.

| Key | Type | Default | What it does |
|---|---|---|---|
| ` + "`driver`" + ` | text | ` + "`dir`" + ` | the driver; the sections below list the keys of each |
`

// repositoriesHead stands above the keys of a repository.
const repositoriesHead = `
## Repositories

Each table ` + "`[repository.NAME]`" + ` is one place for [backups](../guide/backup.md). Names are as those of pools. The key KEY of
the repository NAME has the variable ` + "`REMORA_REPOSITORY_NAME_KEY`; `REMORA_REPOSITORIES=near,far`" + ` makes repositories
that are not in the file. No secret is in the file: it names files and variables in which they are.

| Key | Type | Default | What it does |
|---|---|---|---|
`

// schedulesHead stands before the keys of a schedule.
const schedulesHead = `
## Schedules

Each table ` + "`[schedule.NAME]`" + ` makes snapshots and backups of volumes at set times, and removes those of its own that it does
not keep: [what it is for](../guide/volumes.md#schedules). Names are as those of pools, and so are the variables:
` + "`REMORA_SCHEDULE_NAME_KEY`" + `, and ` + "`REMORA_SCHEDULES=hourly,nightly`" + ` makes schedules that are not in the file. A list is
` + "`[\"db*\", \"web\"]`" + ` in the file and ` + "`db*,web`" + ` elsewhere.

| Key | Type | Default | What it does |
|---|---|---|---|
`

// hooksHead stands before the keys of a hook.
const hooksHead = `
## Hooks

Each table ` + "`[hook.NAME]`" + ` has commands that run before and after a snapshot: [what it is for](../guide/volumes.md#hooks).
The daemon runs them, so they are in the file or nowhere: a hook has no variables, and the file must belong to root and be
written by nobody else.

| Key | Type | Default | What it does |
|---|---|---|---|
`

// verifiesHead stands before the keys of a verification.
const verifiesHead = `
## Verifications

Each table ` + "`[verify.NAME]`" + ` says of which backups it is [proved](../guide/backup.md#is-it-good) that they can be restored: the
newest of each volume of this host. The key KEY of the verification NAME has the variable ` + "`REMORA_VERIFY_NAME_KEY`" + `, and
` + "`REMORA_VERIFIES=weekly,db`" + ` makes some that are not in the file.

| Key | Type | Default | What it does |
|---|---|---|---|
`

// completion takes the place of the long help that comes with the library.
const completion = `
## remora completion

Print the script that completes commands in a shell: ` + "`bash`, `fish`, `powershell` or `zsh`" + `. Names of pools and
volumes are completed too, by asking the daemon.

` + "```text" + `
remora completion bash > /etc/bash_completion.d/remora
` + "```" + `
`

// metricsHead takes the mark of generated pages.
const metricsHead = `%s# The metrics

The daemon tells them in the format of Prometheus on its control socket:

` + "```sh" + `
curl --unix-socket /run/remora/control.sock http://remora/metrics
` + "```" + `

Where [` + "`metrics.listen`" + `](config.md#keys) names an address, they are served there too, with the two pages below
and nothing else: plain on loopback, and with TLS and certificates of its readers anywhere else.

Names and labels are a promise. Beside these there are those of the Go runtime (` + "`go_…`" + `) and of the process
(` + "`process_…`" + `), as everywhere. ` + "`/healthz`" + ` answers 200 while the process does, ` + "`/readyz`" + ` while every pool's storage is in
reach, and otherwise 503 with the pools of which it is not.

| Metric | Type | Labels | What it is |
|---|---|---|---|
`
