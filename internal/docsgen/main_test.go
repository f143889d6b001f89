package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/drivers/all"
	"github.com/remora-plugins/remora/internal/config"
)

func TestPagesAreCurrent(t *testing.T) {
	for name, want := range pages(all.Volumes()) {
		got, err := os.ReadFile(filepath.Join("../../docs/reference", name))
		if err != nil {
			t.Fatal(err)
		}
		if diff := cmp.Diff(string(got), want); diff != "" {
			t.Errorf("docs/reference/%s is not what the code says; run \"make docs\" (-is +should be):\n%s", name, diff)
		}
	}
}

func TestPagesNameEverything(t *testing.T) {
	all := pages(all.Volumes())
	for _, want := range []string{"## remora volume create\n", "`-o, --opt KEY=VALUE`", "14 daemon unreachable", "## remora completion\n"} {
		if !strings.Contains(all["cli.md"], want) {
			t.Errorf("cli.md has no %q", want)
		}
	}
	for _, k := range slices.Concat(config.Keys(), config.PoolKeys(), config.RepositoryKeys(), config.ScheduleKeys(), config.HookKeys()) {
		if !strings.Contains(all["config.md"], "| `"+k.Name+"` |") {
			t.Errorf("config.md has no key %q", k.Name)
		}
	}
}

func TestExampleLoads(t *testing.T) {
	drivers := map[string]config.Driver{}
	for _, d := range all.Volumes() {
		cd := config.Driver{Check: d.Check}
		for _, k := range d.Keys() {
			cd.Keys = append(cd.Keys, k.Name)
		}
		drivers[d.Name()] = cd
	}
	file := filepath.Join(t.TempDir(), "remora.toml")
	if err := os.WriteFile(file, []byte(example), 0o600); err != nil {
		t.Fatal(err)
	}
	c, err := config.Load(config.Source{File: file, Drivers: drivers})
	if err != nil {
		t.Fatal(err)
	}
	if len(c.Pools) != 2 || c.Pools[0].Options["path"] != "/srv/fast" || c.Socket.Mode != 0o660 ||
		len(c.Repositories) != 1 || c.Repositories[0].URL.Host != "backups" ||
		len(c.Schedules) != 1 || c.Schedules[0].Keep.Daily != 7 {
		t.Errorf("the example is read as %+v", c)
	}
}
