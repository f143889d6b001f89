package config_test

import (
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/hook"
	"github.com/remora-plugins/remora/internal/testenv"
)

const twoHooks = `
[hook.flush]
volumes = ["db*", "wal"]
pools = "fast"
schedules = ["nightly"]
container = "db"
user = "postgres"
before = ["psql", "-c", "CHECKPOINT"]
timeout = "5s"
[hook.a]
after = ["sync"]
[pool.fast]
[schedule.nightly]
cron = "@daily"
`

func TestHooks(t *testing.T) {
	c := mustLoad(t, twoHooks)
	want := []hook.Hook{
		{Name: "a", After: []string{"sync"}, Timeout: time.Minute},
		{
			Name: "flush", Pools: []string{"fast"}, Volumes: []string{"db*", "wal"}, Schedules: []string{"nightly"},
			Container: "db", User: "postgres", Before: []string{"psql", "-c", "CHECKPOINT"}, Timeout: 5 * time.Second,
		},
	}
	if diff := cmp.Diff(want, c.Hooks); diff != "" {
		t.Errorf("hooks (-want +got):\n%s", diff)
	}
}

// A file that others may write to, or that belongs to another, is read, but not with hooks.
func TestHooksOfOthers(t *testing.T) {
	testenv.Require(t, testenv.Root)
	for _, tt := range []struct {
		mode  os.FileMode
		owner int
		want  string
	}{
		{0o600, 0, ""},
		{0o644, 0, ""},
		{0o664, 0, "remora.toml:10:2: hook \"a\": the daemon runs it, and others may write to this file (mode 0664): chmod go-w "},
		{0o602, 0, "others may write to this file (mode 0602)"},
		{0o600, 4711, "this file belongs to the user 4711: chown root "},
	} {
		for _, text := range []string{twoHooks, "[pool.fast]\n"} {
			file := write(t, text)
			if err := os.Chmod(file, tt.mode); err != nil {
				t.Fatal(err)
			}
			if err := os.Chown(file, tt.owner, -1); err != nil {
				t.Fatal(err)
			}
			_, err := config.Load(config.Source{File: file, Drivers: drivers()})
			fine := tt.want == "" || text != twoHooks
			if fine != (err == nil) || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("mode %o, owner %d: error is %v, want %q", tt.mode, tt.owner, err, tt.want)
			}
		}
	}
}
