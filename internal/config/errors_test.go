package config_test

import (
	"errors"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// near is a repository.
const near = "[repository.near]\nurl = \"/srv\"\npassword_file = \"/p\"\n"

// What is wrong is said in one line: where, what, and what would be right.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		name  string
		text  string
		env   string
		flags map[string]string
		want  string // FILE stands for the path of the file
	}{
		{"no TOML", "log = \n", "", nil, "FILE:1:"},
		{"key twice", "run_dir = \"/a\"\nrun_dir = \"/b\"\n", "", nil, "FILE:2:1: "},
		{"newer version", "version = 2", "", nil, "FILE:1:1: version: is 2, and this program reads version 1"},
		{"version is text", "version = \"1\"", "", nil, "FILE:1:1: version: is 1, and this program reads version 1"},
		{
			"unknown key", "\nplugindir = \"/x\"\n", "", nil,
			`FILE:2:1: unknown key "plugindir", did you mean "plugin_dir"? (there are: backup.parallel, control.group, engine.sockets, hook.NAME, log.format, log.level, metrics.listen, metrics.tls_ca, metrics.tls_cert, metrics.tls_key, network.driver, network.fast_path, network.scope, plugin_dir, plugins.directory, plugins.engine_api, plugins.insecure_registries, pool.NAME, repository.NAME, run_dir, `,
		},
		{"unknown key in a table", "[log]\nformat = \"json\"\n  lvl = \"debug\"\n", "", nil, `FILE:3:3: unknown key "log.lvl", did you mean "log.level"?`},
		{"unknown key in an inline table", "log = { lvl = 1 }\n", "", nil, `FILE:1:9: unknown key "log.lvl"`},
		{"the first one in the file", "zzz = 1\naaa = 1\n", "", nil, `FILE:1:1: unknown key "zzz"`},
		{"unknown table", "[loging]\nlevel = \"info\"\n", "", nil, `FILE:2:1: unknown key "loging.level", did you mean "log.level"?`},
		{"unknown empty table", "[loging]\n", "", nil, `FILE:1:2: unknown key "loging"`},
		{"table for a value", "[run_dir]\nx = 1\n", "", nil, `FILE:2:1: unknown key "run_dir.x"`},
		{"value for a table", "log = 3\n", "", nil, `FILE:1:1: unknown key "log"`},
		{"list for a value", "run_dir = [\"/a\"]\n", "", nil, "FILE:1:1: run_dir: want a text, a number, true or false"},
		{"wrong word", "[log]\nlevel = \"loud\"\n", "", nil, `FILE:2:1: log.level: "loud" is none of debug, info, warn, error`},
		{"relative path", "run_dir = \"run\"\n", "", nil, `FILE:1:1: run_dir: "run" is not an absolute path`},
		{"mode as a number", "socket.mode = 0o660\n", "", nil, `FILE:1:1: socket.mode: want an octal mode in quotes, such as "0660"`},
		{"mode with a 9", "socket.mode = \"0690\"\n", "", nil, `FILE:1:1: socket.mode: "0690" is not an octal mode such as 0660`},
		{"duration without a unit", "[volume]\nlinger = 5\n", "", nil, `FILE:2:1: volume.linger: "5" is not a duration such as 90s or 5m`},
		{"negative duration", "[volume]\nlinger = \"-5s\"\n", "", nil, `FILE:2:1: volume.linger: "-5s" is not a duration`},
		{"percentage of words", "[trash]\nmin_free = \"some\"\n", "", nil, `FILE:2:1: trash.min_free: "some" is not a percentage such as 5%, below 100%`},
		{"percentage of all", "[pool.a]\ntrash_min_free = \"100%\"\n", "", nil, `FILE:2:1: pool.a.trash_min_free: "100%" is not a percentage`},
		{"percentage that is none", "[trash]\nmin_free = \"NaN\"\n", "", nil, `FILE:2:1: trash.min_free: "NaN" is not a percentage`},
		{"trash of days", "[trash]\nkeep = \"3d\"\n", "", nil, `FILE:2:1: trash.keep: "3d" is not a duration such as 90s or 5m`},
		{"no grace at all", "[volume]\nmount_grace = \"0s\"\n", "", nil, `FILE:2:1: volume.mount_grace: "0s": want more than nothing`},

		{"address without a port", "metrics.listen = \"127.0.0.1\"\n", "", nil, `FILE:1:1: metrics.listen: "127.0.0.1" is not an address such as 127.0.0.1:9464`},
		{"port alone", "metrics.listen = 9464\n", "", nil, `FILE:1:1: metrics.listen: "9464" is not an address`},
		{"port by name", "", "REMORA_METRICS_LISTEN=127.0.0.1:http", nil, `REMORA_METRICS_LISTEN: metrics.listen: "127.0.0.1:http" is not an address`},
		{"large port", "", "REMORA_METRICS_LISTEN=127.0.0.1:65536", nil, `REMORA_METRICS_LISTEN: metrics.listen: "127.0.0.1:65536" is not an address`},
		{
			"all the world", "[metrics]\nlisten = \":9464\"\n", "", nil,
			`FILE:2:1: metrics.listen: ":9464" can be reached from other machines: want metrics.tls_ca, metrics.tls_cert and metrics.tls_key, or an address such as 127.0.0.1:9464`,
		},
		{"another machine", "", "REMORA_METRICS_LISTEN=192.0.2.1:9464", nil, `REMORA_METRICS_LISTEN: metrics.listen: "192.0.2.1:9464" can be reached from other machines`},
		{
			"half of TLS", "[metrics]\nlisten = \":9464\"\ntls_cert = \"/c\"\n", "REMORA_METRICS_TLS_KEY=/k", nil,
			`REMORA_METRICS_TLS_KEY: metrics.tls_key: "metrics.tls_ca" is missing: the three files of TLS are all needed`,
		},
		{
			"TLS of nothing", "[metrics]\ntls_ca = \"/a\"\ntls_cert = \"/c\"\ntls_key = \"/k\"\n", "", nil,
			`FILE:4:1: metrics.tls_key: "metrics.listen" is missing: there is nothing to encrypt`,
		},
		{"relative certificate", "metrics.tls_ca = \"ca.pem\"\n", "", nil, `FILE:1:1: metrics.tls_ca: "ca.pem" is not an absolute path`},

		{"engine API", "[plugins]\nengine_api = true\n", "", nil, `FILE:2:1: plugins.engine_api: "true" is none of on, off`},
		{"registry with a path", "[plugins]\ninsecure_registries = [\"a:5000\", \"https://b\"]\n", "", nil, `FILE:2:1: plugins.insecure_registries: "https://b" is not a registry such as registry.lan:5000`},
		{"registry with a wrong port", "", "REMORA_PLUGINS_INSECURE_REGISTRIES=a:x", nil, `REMORA_PLUGINS_INSECURE_REGISTRIES: plugins.insecure_registries: "a:x": port "x" is not a number`},
		{"relative directory of plugins", "[plugins]\ndirectory = \"x\"\n", "", nil, `FILE:2:1: plugins.directory: "x" is not an absolute path`},

		{"table with an s", "[pools.fast]\npath = \"/x\"\n", "", nil, `FILE:1:2: unknown key "pools.fast", did you mean "pool.fast"? (there are: `},
		{"pool is no table", "pool = 3\n", "", nil, "FILE:1:1: pool: want tables such as [pool.fast]"},
		{"pools are a list", "[[pool]]\nname = \"fast\"\n", "", nil, "FILE:1:3: pool: want tables such as [pool.fast]"},
		{"key among the pools", "[pool]\npath = \"/x\"\n", "", nil, "FILE:2:1: pool.path: want a table such as [pool.fast]"},
		{"upper case", "[pool.Fast]\n", "", nil, `FILE:1:2: pool "Fast": want lower-case letters`},
		{"path as a name", "[pool.\"../x\"]\n", "", nil, `FILE:1:2: pool "../x": want lower-case`},
		{"long name", "[pool." + strings.Repeat("a", 65) + "]\n", "", nil, `64 at most`},
		{"name from the environment", "", "REMORA_POOLS=Fast", nil, `REMORA_POOLS: pool "Fast": want lower-case`},
		{"no driver", "[pool.x]\ndriver = \"dri\"\n", "", nil, `FILE:2:1: pool.x.driver: no driver "dri", did you mean "dir"? (there are: box, dir)`},
		{
			"key of a driver", "[pool.x]\npaht = \"/x\"\n", "", nil,
			`FILE:2:1: pool "x": unknown key "paht", did you mean "path"? (there are: driver, linger, mount_grace, path, refresh, trash_keep, trash_min_free)`,
		},
		{"common key of a pool", "[pool.x]\nlinger = \"x\"\n", "", nil, `FILE:2:1: pool.x.linger: "x" is not a duration`},
		{
			"value of a driver's key", "[pool.x]\ndriver = \"box\"\nurl = \"u\"\nsize = \"huge\"\n", "", nil,
			`FILE:4:1: pool "x": key "size": "huge" is not a size`,
		},
		{
			"the same from the environment", "[pool.x]\ndriver = \"box\"\nurl = \"u\"\n", "REMORA_POOL_X_SIZE=huge", nil,
			`REMORA_POOL_X_SIZE: pool "x": key "size": "huge" is not a size`,
		},
		{"missing key of a driver", "[pool.x]\ndriver = \"box\"\n", "", nil, `FILE:1:2: pool "x": key "url" is missing: where the box is`},

		{"schedules are no table", "schedule = 1", "", nil, "FILE:1:1: schedule: want tables such as [schedule.nightly]"},
		{"schedule is no table", "schedule.x = 1", "", nil, "FILE:1:1: schedule.x: want a table such as [schedule.nightly]"},
		{"schedule's name", "[schedule.X]\ncron = \"@daily\"\n", "", nil, `FILE:1:2: schedule "X": want lower-case letters`},
		{"schedule without a time", "[schedule.x]\npools = [\"a\"]\n", "", nil, `FILE:1:2: schedule "x": key "cron" is missing`},
		{"schedule from the environment without a time", "", "REMORA_SCHEDULES=x", nil, `REMORA_SCHEDULES: schedule "x": key "cron" is missing`},
		{"wrong time", "[schedule.x]\ncron = \"0 25 * * *\"\n", "", nil, `FILE:2:1: schedule.x.cron: "0 25 * * *": hour: "25" is none from 0 to 23`},
		{"wrong time from the environment", "[schedule.x]\n", "REMORA_SCHEDULE_X_CRON=daily", nil, `REMORA_SCHEDULE_X_CRON: schedule.x.cron: "daily": want minute,`},
		{"list of times", "[schedule.x]\ncron = [\"@daily\"]\n", "", nil, `FILE:2:1: schedule.x.cron: want a text`},
		{"list of numbers", "[schedule.x]\npools = [1]\n", "", nil, `FILE:2:1: schedule.x.pools: want a text`},
		{"wrong pattern", "[schedule.x]\nvolumes = [\"a\", \"b[\"]\n", "", nil, `FILE:2:1: schedule.x.volumes: "b[" is not a pattern such as db*`},
		{"wrong number", "[schedule.x]\nkeep_last = -1\n", "", nil, `FILE:2:1: schedule.x.keep_last: "-1" is not a number such as 7`},
		{"wrong jitter", "[schedule.x]\njitter = 5\n", "", nil, `FILE:2:1: schedule.x.jitter: "5" is not a duration`},
		{"unknown key of a schedule", "[schedule.x]\nkeep = 5\n", "", nil, `FILE:2:1: schedule "x": unknown key "keep" (there are: backup, cron, jitter, keep_daily, `},
		{"backup to nowhere", "[schedule.x]\ncron = \"@daily\"\nbackup = [\"naer\"]\n" + near, "", nil, `FILE:3:1: schedule.x.backup: no repository "naer", did you mean "near"?`},
		{"schedule for no pool", "[schedule.x]\ncron = \"@daily\"\npools = [\"snap*\", \"snpas\"]\n[pool.snaps]\n", "", nil, `FILE:3:1: schedule.x.pools: no pool "snpas", did you mean "snaps"?`},
		{"the same from the environment", "[schedule.x]\ncron = \"@daily\"\n", "REMORA_SCHEDULE_X_POOLS=fast", nil, `REMORA_SCHEDULE_X_POOLS: schedule.x.pools: no pool "fast" (there are: remora)`},
		{"hook for no pool", "[hook.x]\nbefore = [\"sync\"]\npools = [\"remroa\"]\n", "", nil, `FILE:3:1: hook.x.pools: no pool "remroa", did you mean "remora"?`},
		{"hook for no schedule", "[hook.x]\nbefore = [\"sync\"]\nschedules = [\"nightly\"]\n", "", nil, `FILE:3:1: hook.x.schedules: no schedule "nightly", as none is configured`},
		{"schedule that does nothing", "[schedule.x]\ncron = \"@daily\"\nsnapshot = false\n", "", nil, `FILE:3:1: schedule.x.snapshot: false, and no backup either`},
		{"snapshot perhaps", "[schedule.x]\ncron = \"@daily\"\nsnapshot = \"perhaps\"\n", "", nil, `FILE:3:1: schedule.x.snapshot: "perhaps" is neither true nor false`},
		{"no backup at a time", "[backup]\nparallel = 0\n", "", nil, `FILE:2:1: backup.parallel: "0" is not a number of 1 at least`},
		{"relative socket", "[engine]\nsockets = [\"docker.sock\"]\n", "", nil, `FILE:2:1: engine.sockets: "docker.sock" is not the absolute path of a socket`},
		{"engine and none", "[engine]\nsockets = [\"/run/docker.sock\", \"none\"]\n", "", nil, `FILE:2:1: engine.sockets: "none" is not`},
		{"hook without a command", "[hook.x]\nvolumes = [\"a\"]\n", "", nil, `FILE:1:2: hook "x": it runs nothing: give it "before" or "after"`},
		{"hook as a text", "[hook.x]\nbefore = \"sync\"\n", "", nil, `FILE:2:1: hook.x.before: want a program and its arguments`},
		{"hook of numbers", "[hook.x]\nafter = [1]\n", "", nil, `FILE:2:1: hook.x.after: want a program and its arguments`},
		{"hook of nothing", "[hook.x]\nafter = []\n", "", nil, `FILE:2:1: hook.x.after: want a program and its arguments`},
		{"hook with a wrong time", "[hook.x]\nafter = [\"a\"]\ntimeout = \"soon\"\n", "", nil, `FILE:3:1: hook.x.timeout: "soon" is not a duration`},
		{"hook with no time", "[hook.x]\nafter = [\"a\"]\ntimeout = \"0s\"\n", "", nil, `FILE:3:1: hook.x.timeout: "0s": want more than nothing`},
		{"hook for a wrong pattern", "[hook.x]\nafter = [\"a\"]\nvolumes = [\"[\"]\n", "", nil, `FILE:3:1: hook.x.volumes: "[" is not a pattern`},
		{"hook with an unknown key", "[hook.x]\nbefor = [\"a\"]\n", "", nil, `FILE:2:1: hook "x": unknown key "befor", did you mean "before"?`},
		{"user on the host", "[hook.x]\nbefore = [\"a\"]\nuser = \"postgres\"\n", "", nil, `FILE:1:2: hook "x": "user" is for commands in a container`},
		{"hook in the environment", "[hook.x]\nbefore = [\"a\"]\n", "REMORA_HOOK_X_BEFORE=evil", nil, `environment: unknown variable "REMORA_HOOK_X_BEFORE"`},
		{"hook as a flag", "[hook.x]\nbefore = [\"a\"]\n", "", map[string]string{"hook.x.before": "evil"}, `flag: unknown key "hook.x.before"`},
		{"no such schedule in the environment", "[schedule.x]\ncron = \"@daily\"\n", "REMORA_SCHEDULE_Y_CRON=@daily", nil, `environment: "REMORA_SCHEDULE_Y_CRON" is no key of a schedule there is`},
		{"no such schedule in a flag", "", "", map[string]string{"schedule.y.cron": "@daily"}, `flag: "schedule.y.cron" is no key of a schedule there is`},
		{
			"unknown variable", "", "REMORA_LOGLEVEL=debug", nil,
			`environment: unknown variable "REMORA_LOGLEVEL", did you mean "REMORA_LOG_LEVEL"? (there are: REMORA_BACKUP_PARALLEL, REMORA_CONTROL_GROUP, REMORA_ENGINE_SOCKETS, `,
		},
		{"variable of no pool", "", "REMORA_POOL_FAST_PATH=/x", nil, `environment: "REMORA_POOL_FAST_PATH" is no key of a pool there is`},
		{"wrong value of a variable", "", "REMORA_LOG_LEVEL=loud", nil, `REMORA_LOG_LEVEL: log.level: "loud" is none of`},
		{
			"variable of two pools", "[pool.a-b]\n[pool.a_b]\n", "REMORA_POOL_A_B_PATH=/x", nil,
			`REMORA_POOL_A_B_PATH: pool.a_b.path: the variable could stand for "pool.a-b.path" as well`,
		},
		{"unknown flag", "", "", map[string]string{"log.levl": "x"}, `flag: unknown key "log.levl", did you mean "log.level"?`},
		{"flag of no pool", "", "", map[string]string{"pool.fast.path": "/x"}, `flag: "pool.fast.path" is no key of a pool there is`},
		{"wrong value of a flag", "", "", map[string]string{"log.level": "loud"}, `flag: log.level: "loud" is none of`},
	} {
		t.Run(tt.name, func(t *testing.T) {
			file := write(t, tt.text)
			_, err := config.Load(config.Source{File: file, Env: []string{tt.env}, Flags: tt.flags, Drivers: drivers()})
			if err == nil {
				t.Fatal("it is taken")
			}
			got := strings.ReplaceAll(err.Error(), file, "FILE")
			if !strings.Contains(got, tt.want) || strings.Contains(got, "\n") || !errors.Is(err, errdefs.ErrInvalid) {
				t.Errorf("error is %q (%s), want %q", got, errdefs.Name(err), tt.want)
			}
		})
	}
}
