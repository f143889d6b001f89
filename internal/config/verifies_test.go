package config_test

import (
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"github.com/google/go-cmp/cmp/cmpopts"

	"github.com/remora-plugins/remora/internal/config"
	"github.com/remora-plugins/remora/internal/schedule"
)

const verifyHead = "[pool.fast]\n[repository.near]\nurl = \"/srv/near\"\npassword_file = \"/etc/p\"\n"

func TestVerifies(t *testing.T) {
	c, err := load(t, verifyHead+`
[verify.all]
[verify.db]
cron = "@weekly"
volumes = ["db*", "mail"]
scratch = "/srv/scratch/"
image = "postgres:17"
command = "pg_verifybackup /data"
mountpoint = "/var/lib/postgresql"
timeout = "1h"
memory = "2g"
`, "REMORA_VERIFIES=all,env", "REMORA_VERIFY_ENV_POOLS=fast", "REMORA_VERIFY_ENV_SCRATCH=fast")
	if err != nil {
		t.Fatal(err)
	}
	weekly, err := schedule.Parse("@weekly")
	if err != nil {
		t.Fatal(err)
	}
	plain := config.Verify{Mountpoint: "/data", Timeout: 10 * time.Minute, Memory: 512 << 20}
	all, env := plain, plain
	all.Name, env.Name, env.Pools, env.Scratch = "all", "env", []string{"fast"}, "fast"
	want := []config.Verify{all, {
		Name: "db", Cron: weekly, Volumes: []string{"db*", "mail"}, Scratch: "/srv/scratch", Image: "postgres:17", Command: "pg_verifybackup /data",
		Mountpoint: "/var/lib/postgresql", Timeout: time.Hour, Memory: 2 << 30,
	}, env}
	if diff := cmp.Diff(want, c.Verifies, cmpopts.EquateComparable(schedule.Cron{})); diff != "" {
		t.Errorf("verifications (-want +got):\n%s", diff)
	}
	if !all.Matches("any", "volume") || !want[1].Matches("any", "db1") || want[1].Matches("any", "web") || env.Matches("slow", "db1") {
		t.Error("the wrong volumes match")
	}
	if config.NewVerify().Mountpoint != "/data" || config.NewVerify().Memory == 0 || config.NewVerify().Timeout == 0 {
		t.Errorf("defaults are %+v", config.NewVerify())
	}
}

func TestWrongVerifies(t *testing.T) {
	for text, want := range map[string]string{
		"cron = \"daily\"":       "verify.x.cron: ",
		"corn = \"@daily\"":      `unknown key "corn", did you mean "cron"?`,
		"repository = \"naer\"":  `verify "x": there is no repository "naer", did you mean "near"?`,
		"scratch = \"fsat\"":     `verify "x": there is no pool "fsat", did you mean "fast"?`,
		"scratch = \"../x\"":     "verify.x.scratch: ",
		"command = \"true\"":     `key "image" is missing`,
		"mountpoint = \"data\"":  "is not an absolute path",
		"mountpoint = \"/\"":     "is not an absolute path below /",
		"mountpoint = \"/a:ro\"": "is not an absolute path below /",
		"timeout = \"0s\"":       "verify.x.timeout: ",
		"memory = \"1m\"":        "less than the 6m",
		"memory = \"much\"":      "verify.x.memory: ",
		"volumes = [\"[\"]":      "is not a pattern",
		"[repository.far]\nurl = \"/srv/far\"\npassword_file = \"/etc/p\"": `key "repository" is missing (there are: far, near)`,
	} {
		_, err := load(t, verifyHead+"[verify.x]\n"+text+"\n")
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
	_, err := load(t, "[verify.x]\n")
	if err == nil || !strings.Contains(err.Error(), `verify "x": there is no repository: add a table`) {
		t.Errorf("without a repository: %v", err)
	}
}
