package e2e

import (
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/test/e2e/lab"
)

// startSQLite runs a container whose database is written to all the while, and whose main file
// gets nothing of it but by a checkpoint. SQLite is that of this machine.
func startSQLite(h *lab.Host, name, volume string) {
	h.MustDocker("run", "-d", "--name", name, "--label", "role="+name, "--network=none", "-v", volume+":/data",
		"-v", "/usr/lib:/usr/lib:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro", "-v", "/usr/bin/sqlite3:/usr/bin/sqlite3:ro",
		"bb:1", "sh", "-c", "(echo 'pragma journal_mode=wal; pragma wal_autocheckpoint=0; create table t(n integer primary key);'; "+
			"while :; do echo 'insert into t default values;'; sleep 0.01; done) | /usr/bin/sqlite3 /data/db")
}

// rows counts what is in the main file of a database in a volume, without its log.
func rows(h *lab.Host, volume string) string {
	out := h.MustDocker("run", "--rm", "--network=none", "-v", volume+":/data",
		"-v", "/usr/lib:/usr/lib:ro", "-v", "/usr/lib:/lib:ro", "-v", "/usr/lib64:/lib64:ro", "-v", "/usr/bin/sqlite3:/usr/bin/sqlite3:ro",
		"bb:1", "sh", "-c", "cp /data/db /tmp/db && /usr/bin/sqlite3 /tmp/db 'pragma integrity_check; select count(*) > 0 from t' 2>&1; true")
	return strings.Join(strings.Fields(out), " ")
}

// TestHookInContainer: a database in a container is told to put everything in its main file
// before a snapshot and before a backup; where that fails there is neither.
func TestHookInContainer(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs, testenv.SQLite)...)
	h := l.Host(t, "h1")
	checkpoint := "before = [\"/usr/bin/sqlite3\", \"-cmd\", \".timeout 9000\", \"/data/db\", \"pragma wal_checkpoint(full); select 'no' where 0;\"]\n"
	h.Write("/etc/remora/near.password", "correct horse battery staple\n")
	h.Must("chmod", "0600", "/etc/remora/near.password")
	config := "[pool.snap]\ndriver = \"btrfs\"\n" +
		"[repository.near]\nurl = \"/var/lib/docker/near\"\npassword_file = \"/etc/remora/near.password\"\n" +
		"[hook.byname]\nvolumes = [\"named\"]\ncontainer = \"named\"\n" + checkpoint +
		"[hook.bylabel]\nvolumes = [\"labelled\"]\ncontainer = \"role=labelled\"\n" + checkpoint +
		"[hook.refuses]\nvolumes = [\"refuses\"]\ncontainer = \"refuses\"\nbefore = [\"sh\", \"-c\", \"echo $REMORA_VOLUME is not ready >&2; exit 3\"]\nafter = [\"sh\", \"-c\", \"echo > /data/after\"]\n" +
		"[hook.nobody]\nvolumes = [\"nobody\"]\ncontainer = \"nobody\"\nbefore = [\"true\"]\n" +
		"[hook.other]\nvolumes = [\"other\"]\ncontainer = \"role=named\"\nbefore = [\"true\"]\n" +
		"[hook.slow]\nvolumes = [\"slow\"]\ncontainer = \"refuses\"\ntimeout = \"1s\"\nbefore = [\"sleep\", \"60\"]\n"
	h.Remora(config)
	h.Dockerd()
	h.MustCli("backup", "init", "near")
	for _, v := range []string{"named", "labelled", "plain"} {
		h.MustDocker("volume", "create", "-d", "snap", v)
		startSQLite(h, v, v)
	}
	for _, v := range []string{"refuses", "nobody", "other", "slow"} {
		h.MustDocker("volume", "create", "-d", "snap", v)
	}
	h.MustDocker("run", "-d", "--name", "refuses", "--network=none", "-v", "refuses:/data", "bb:1", "sleep", "1000")
	time.Sleep(time.Second) // rows come a hundred a second
	for _, v := range []string{"named", "labelled", "plain"} {
		h.MustCli("snapshot", "create", v, "s")
		h.MustDocker("volume", "create", "-d", "snap", "-o", "from="+v+"@s", "clone-of-"+v)
	}
	is(t, "the snapshot with a hook", rows(h, "clone-of-named"), "ok 1")
	is(t, "the snapshot with a hook by label", rows(h, "clone-of-labelled"), "ok 1")
	if got := rows(h, "clone-of-plain"); strings.HasSuffix(got, " 1") {
		t.Errorf("without a hook the main file has all rows too, and the test shows nothing: %s", got)
	}
	h.MustCli("backup", "create", "named")
	id := h.MustCli("backup", "ls", "-q", "named")
	h.MustCli("backup", "restore", id, "--to", "restored")
	is(t, "the backup with a hook", rows(h, "restored"), "ok 1")

	want(t, h.Fails(l.Remora, "snapshot", "create", "refuses"), `volume "refuses": hook "refuses" before: container "refuses": exit status 3: refuses is not ready`)
	h.MustDocker("exec", "refuses", "cat", "/data/after")
	want(t, h.Fails(l.Remora, "snapshot", "create", "nobody"), `hook "nobody" before: container "nobody": no such container`)
	want(t, h.Fails(l.Remora, "snapshot", "create", "other"), `hook "other" before: no container with the label role=named has the volume`)
	want(t, h.Fails(l.Remora, "snapshot", "create", "slow"), `hook "slow" before: container "refuses": `, "gave up after 1s")
	for _, v := range []string{"refuses", "nobody", "other", "slow"} {
		is(t, "snapshots of "+v, h.MustCli("snapshot", "ls", "-q", v), "")
	}
	// In a container that is stopped nobody writes.
	h.MustDocker("stop", "-t", "1", "refuses")
	h.MustCli("snapshot", "create", "refuses", "at-rest")
}

// TestComposeProject: what belongs to a project is kept and backed up at once, as its labels and
// those of its containers say.
func TestComposeProject(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	h.Write("/etc/remora/near.password", "correct horse battery staple\n")
	h.Must("chmod", "0600", "/etc/remora/near.password")
	h.Remora("[pool.remora]\ndriver = \"btrfs\"\n[pool.plain]\n" +
		"[repository.near]\nurl = \"/var/lib/docker/near\"\npassword_file = \"/etc/remora/near.password\"\n" +
		"[hook.note]\nvolumes = [\"shop_db\"]\nbefore = [\"touch\", \"/var/lib/docker/hooked\"]\n")
	want(t, h.Fails(l.Remora, "snapshot", "create", "--project", "shop"), `project "shop": no engine here to ask for its volumes`)
	h.Dockerd()
	h.MustCli("backup", "init", "near")
	const project = "com.docker.compose.project="
	h.MustDocker("volume", "create", "-d", "remora", "--label", project+"shop", "shop_db")
	h.MustDocker("volume", "create", "-d", "remora", "--label", project+"other", "other_db")
	h.MustDocker("volume", "create", "-d", "remora", "external")
	h.MustDocker("create", "--name", "shop-web-1", "--label", project+"shop", "--network=none", "-v", "external:/data", "-v", "shop_db:/db", "bb:1", "true")
	for _, v := range []string{"shop_db", "external", "other_db"} {
		writes(h, v, "f", v)
	}
	out := h.MustCli("snapshot", "create", "--project", "shop", "release")
	is(t, "snapshots", out, "external@release\nshop_db@release")
	is(t, "snapshots of another project", h.MustCli("snapshot", "ls", "-q", "other_db"), "")
	again := h.Fails(l.Remora, "snapshot", "create", "--project", "shop", "release")
	want(t, again, `volume "shop_db": `, `volume "external": `)
	want(t, h.Fails(l.Remora, "snapshot", "create", "--project", "nothing"), `project "nothing": no volume of a pool belongs to it`)

	// Where it cannot go, no hook is run for it, and no snapshot made.
	h.Must("rm", "/var/lib/docker/hooked")
	h.Must("mv", "/var/lib/docker/near", "/var/lib/docker/away")
	want(t, h.Fails(l.Remora, "backup", "create", "--project", "shop"), `repository "near": directory /var/lib/docker/near is not there`)
	h.Must("test", "!", "-e", "/var/lib/docker/hooked")
	h.Must("mv", "/var/lib/docker/away", "/var/lib/docker/near")
	ids := strings.Fields(h.MustCli("backup", "create", "--project", "shop"))
	is(t, "backups", len(ids), 2)
	h.Must("test", "-e", "/var/lib/docker/hooked")
	list := h.MustCli("backup", "ls")
	for _, v := range []string{"external", "shop_db"} {
		if !regexp.MustCompile(`(?m) remora +` + v + ` .* yes *$`).MatchString(list) {
			t.Errorf("there is no backup of %s of one moment:\n%s", v, list)
		}
		is(t, "snapshots that are left", h.MustCli("snapshot", "ls", "-q", v), "release")
	}
	h.MustCli("backup", "restore", ids[0], "--to", "restored")
	is(t, "restored", reads(h, "restored", "f"), "external")

	// What cannot be kept so is said, of each volume, and the rest is.
	h.MustDocker("volume", "create", "-d", "plain", "--label", project+"shop", "shop_cache")
	h.MustDocker("volume", "create", "--label", project+"shop", "shop_local")
	some := h.Fails(l.Remora, "snapshot", "create", "--project", "shop", "second")
	want(t, some, "2 snapshots, all within ", `volume "shop_cache": the driver cannot make snapshots`, `warning: volume "shop_local": its driver "local" is no pool here, and it is left out`, "exit status 3")
	is(t, "snapshots", h.MustCli("snapshot", "ls", "-q", "shop_db"), "release\nsecond")
	is(t, "backups", len(strings.Fields(h.MustCli("backup", "create", "--project", "shop"))), 3)
}

// TestScheduleByLabel: a volume asks for a schedule by a label, which engines do not tell
// plugins, or by an option.
func TestScheduleByLabel(t *testing.T) {
	t.Parallel()
	l := newLab(t, append(slices.Clone(engine), testenv.Btrfs)...)
	h := l.Host(t, "h1")
	h.Remora("[pool.snap]\ndriver = \"btrfs\"\n[schedule.often]\ncron = \"* * * * *\"\nkeep_last = 1\n")
	h.Dockerd()
	h.MustDocker("volume", "create", "-d", "snap", "--label", "remora.schedule=often", "labelled")
	h.MustDocker("volume", "create", "-d", "snap", "--label", "remora.schedule=oftn", "wrong")
	h.MustDocker("volume", "create", "-d", "snap", "-o", "schedule=often", "asked")
	h.MustDocker("volume", "create", "-d", "snap", "plain")
	want(t, h.Fails("docker", "volume", "create", "-d", "snap", "-o", "schedule=oftn", "bad"), `no schedule "oftn", there are: often`)
	eventually(t, 40*time.Second, func() bool {
		list := h.MustCli("schedule", "ls", "--volumes")
		return strings.Contains(list, " labelled ") && strings.Contains(list, " asked ") && !strings.Contains(list, " plain ") && !strings.Contains(list, " wrong ")
	})
	eventually(t, 150*time.Second, func() bool {
		return h.MustCli("snapshot", "ls", "-q", "labelled") != "" && h.MustCli("snapshot", "ls", "-q", "asked") != ""
	})
	is(t, "snapshots of what asks for nothing", h.MustCli("snapshot", "ls", "-q", "plain"), "")
	want(t, h.MustCli("volume", "inspect", "labelled"), `"often"`)
}

// TestHooksAndProjectsOfPodman: Podman answers the same API, with streams, labels and names of its
// own making.
func TestHooksAndProjectsOfPodman(t *testing.T) {
	t.Parallel()
	l := newLab(t, testenv.Podman, testenv.Btrfs)
	h := l.Host(t, "h1")
	h.Remora("[pool.remora]\ndriver = \"btrfs\"\n" +
		"[hook.works]\nvolumes = [\"db\"]\ncontainer = \"role=db\"\nbefore = [\"sh\", \"-c\", \"echo $REMORA_VOLUME $REMORA_HOOK > /data/said\"]\n" +
		"[hook.fails]\nvolumes = [\"bad\"]\ncontainer = \"c1\"\nbefore = [\"sh\", \"-c\", \"echo no >&2; exit 3\"]\n" +
		"[hook.nobody]\nvolumes = [\"nobody\"]\ncontainer = \"nobody\"\nbefore = [\"sh\"]\n")
	pod := podman(t, h)
	pod("import", "-q", l.Image, lab.ImageName)
	s := h.Start([]string{"PODMAN_IGNORE_CGROUPSV1_WARNING=1"}, "podman", "--root=/var/lib/docker/podman", "--runroot=/run/podman", "--storage-driver=vfs",
		"system", "service", "--time=0", "unix:///run/podman/podman.sock")
	h.Wait(s, 30*time.Second, "podman", func() error {
		_, err := h.Run("podman", "--url=unix:///run/podman/podman.sock", "version")
		return err
	})
	for _, v := range []string{"db", "bad", "nobody"} {
		pod("volume", "create", "--driver", "remora", "--label", "com.docker.compose.project=shop", v)
	}
	pod("volume", "create", "--driver", "remora", "external")
	pod("run", "-d", "--name", "c1", "--label", "role=db", "--label", "com.docker.compose.project=shop", "--network=none",
		"-v", "db:/data", "-v", "external:/more", lab.ImageName, "sleep", "1000")
	h.MustCli("snapshot", "create", "db", "s")
	h.MustCli("volume", "create", "--from", "db@s", "clone")
	pod("volume", "reload")
	is(t, "what the hook left", pod("run", "--rm", "--network=none", "-v", "clone:/data", lab.ImageName, "cat", "/data/said"), "db before")
	want(t, h.Fails(l.Remora, "snapshot", "create", "bad"), `hook "fails" before: container "c1": exit status 3: no`)
	want(t, h.Fails(l.Remora, "snapshot", "create", "nobody"), `hook "nobody" before: container "nobody": no such container`)
	out := h.Fails(l.Remora, "snapshot", "create", "--project", "shop", "--pause", "all")
	want(t, out, `project "shop": paused for `, `volume "bad": hook "fails"`, `volume "nobody": hook "nobody"`, "2 snapshots, all within ")
	for _, v := range []string{"db", "external"} {
		want(t, h.MustCli("snapshot", "ls", "-q", v), "all")
	}
	is(t, "the container", strings.TrimSpace(pod("inspect", "-f", "{{.State.Status}}", "c1")), "running")
	pod("rm", "-f", "-t", "0", "c1")
}
