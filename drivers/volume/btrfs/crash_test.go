package btrfs

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/pooldir"
	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

const killedState = "REMORA_TEST_KILLED_STATE"

func TestMain(m *testing.M) {
	if dir := os.Getenv(killedState); dir != "" {
		fmt.Fprintln(os.Stderr, workUntilKilled(context.Background(), dir))
		os.Exit(1)
	}
	os.Exit(testenv.Main(m))
}

// workUntilKilled is the process that is killed: it does all that there is to do, over and
// over, with a few volumes.
func workUntilKilled(ctx context.Context, dir string) error {
	opened, err := Driver().Open(ctx, map[string]any{"size": "1g"}, catalog.Env{PoolName: "test", StateDir: dir + "/state", RunDir: dir + "/run"})
	if err != nil {
		return err
	}
	d := opened.(*driver)
	for {
		name, snap := fmt.Sprint("v", rand.IntN(3)), fmt.Sprint("s", rand.IntN(3))
		var err error
		switch rand.IntN(9) {
		case 0, 1:
			err = d.Create(ctx, name, opts("size=64m"))
		case 2:
			err = d.Remove(ctx, name)
		case 3, 4:
			err = d.CreateSnapshot(ctx, name, snap, map[string]string{"for": name})
		case 5:
			err = d.RemoveSnapshot(ctx, name, snap)
		case 6:
			err = d.Rollback(ctx, name, snap)
		case 7:
			err = d.Clone(ctx, name, fmt.Sprint("v", rand.IntN(3)), "", opts())
		case 8:
			err = throughTheTrash(ctx, d, name)
		}
		if err != nil && !errors.Is(err, errdefs.ErrNotFound) && !errors.Is(err, errdefs.ErrExists) {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
}

func throughTheTrash(ctx context.Context, d *driver, name string) error {
	if err := d.Trash(ctx, name); err != nil {
		return err
	}
	all, err := d.Trashed(ctx)
	if err != nil || len(all) == 0 {
		return fmt.Errorf("in the trash: %v, %w", all, err)
	}
	if rand.IntN(2) == 0 {
		return d.Purge(ctx, all[0].ID)
	}
	return d.Restore(ctx, all[0].ID, all[0].Name)
}

// TestKill kills a process at work at any moment. What it leaves is volumes that are whole,
// snapshots of them, and nothing else once it was swept.
func TestKill(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	dir := t.TempDir()
	h := host{dir + "/state", dir + "/run"}
	t.Cleanup(func() { unmountAll(t, dir) })
	rounds, chance := testenv.Rounds(60), rand.New(rand.NewPCG(testenv.Seed(t), 0))
	var volumes, snapshots int
	for round := range rounds {
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), killedState+"="+dir)
		cmd.Stderr = t.Output()
		cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Duration(chance.Int64N(int64(150 * time.Millisecond))))
		if err := cmd.Process.Kill(); err != nil {
			t.Fatalf("round %d: it ended by itself: %v", round, err)
		}
		if err := cmd.Wait(); err == nil || cmd.ProcessState.Exited() {
			t.Fatalf("round %d: it ended by itself: %v", round, err)
		}
		d := openImage(t, h)
		mustBeSwept(t, d)
		for _, name := range list(t, d) {
			volumes++
			if _, err := d.Inspect(t.Context(), name); err != nil {
				t.Errorf("round %d: %v", round, err)
			}
			write(t, data(t, d, name)+"/f", name)
			if u, err := d.Usage(t.Context(), name); err != nil || u.Limit != 64<<20 {
				t.Errorf("round %d: usage %+v, %v", round, u, err)
			}
			all, err := d.Snapshots(t.Context(), name)
			if err != nil {
				t.Errorf("round %d: %v", round, err)
			}
			for _, s := range all {
				snapshots++
				if s.Labels["for"] == "" {
					t.Errorf("round %d: a snapshot without its labels: %+v", round, s)
				}
			}
			if err := d.Unmount(t.Context(), name, ""); err != nil {
				t.Error(err)
			}
		}
		trashed, err := d.Trashed(t.Context())
		if err != nil {
			t.Error(err)
		}
		for _, x := range trashed {
			if err := d.Purge(t.Context(), x.ID); err != nil {
				t.Error(err)
			}
		}
		if err := d.Close(); err != nil {
			t.Error(err)
		}
		if images, _ := filepath.Glob(dir + "/state/images/*"); len(images) != 1 {
			t.Fatalf("round %d: images: %q", round, images)
		}
	}
	t.Logf("looked at %d volumes with %d snapshots", volumes, snapshots)
	if !testing.Short() && (volumes == 0 || snapshots == 0) {
		t.Error("nothing was looked at")
	}
	d := openImage(t, h)
	for _, name := range list(t, d) {
		if err := d.Remove(t.Context(), name); err != nil {
			t.Error(err)
		}
	}
	mustBeSwept(t, d)
	if out := command(t, "btrfs", "subvolume", "list", d.Path); out != "" {
		t.Errorf("left: %s", out)
	}
}

// TestLeftovers: what a crash leaves between any two steps.
func TestLeftovers(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one")
	write(t, data(t, d, "one")+"/f", "kept")
	pool := d.Path
	for _, tt := range []struct {
		name   string
		subvol bool
	}{
		{".remora-new-0123456789abcdef", false},
		{".remora-new-0123456789abcdee", true},
		{".remora-gone-0123456789abcdef", true},
		{".remora-gone-0123456789abcdee", false},
		{".remora-adopt-0123456789abcdee", false},
	} {
		command(t, "mkdir", "-p", pool+"/"+tt.name)
		if tt.subvol {
			command(t, "btrfs", "subvolume", "create", pool+"/"+tt.name+"/data")
			command(t, "mkdir", pool+"/"+tt.name+"/snapshots")
			command(t, "btrfs", "subvolume", "snapshot", "-r", pool+"/"+tt.name+"/data", pool+"/"+tt.name+"/snapshots/s")
		}
	}
	command(t, "mkdir", pool+"/.remora-gone-precious", pool+"/.hidden")
	// Labels of a snapshot that was not made.
	command(t, "mkdir", "-p", pool+"/one/snapshots")
	write(t, pool+"/one/snapshots/s.json", `{"version":1,"name":"s","labels":{"a":"old"}}`)
	mustList(t, d, "one")
	d.Wait()
	var left []string
	entries, err := os.ReadDir(pool)
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		left = append(left, e.Name())
	}
	if want := []string{".hidden", ".remora-gone-precious", pooldir.MarkerName, "one"}; !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
	if all, err := d.Snapshots(t.Context(), "one"); err != nil || len(all) != 0 {
		t.Errorf("snapshots: %+v, %v", all, err)
	}
	if err := d.CreateSnapshot(t.Context(), "one", "s", map[string]string{"a": "new"}); err != nil {
		t.Fatal(err)
	}
	if all, err := d.Snapshots(t.Context(), "one"); err != nil || len(all) != 1 || all[0].Labels["a"] != "new" {
		t.Errorf("snapshots: %+v, %v", all, err)
	}
	mustRead(t, data(t, d, "one")+"/f", "kept")
}

// TestAdoptionIsFinished: the subvolume of the user had moved in, and had no name yet.
func TestAdoptionIsFinished(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one")
	write(t, data(t, d, "one")+"/f", "kept")
	if err := os.Rename(d.Path+"/one", d.Path+"/.remora-adopt-0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	mustList(t, d, "one")
	mustRead(t, data(t, d, "one")+"/f", "kept")
	// Something else has the name: both stay.
	if err := os.Rename(d.Path+"/one", d.Path+"/.remora-adopt-0123456789abcdef"); err != nil {
		t.Fatal(err)
	}
	create(t, d, "one")
	mustList(t, d, "one")
	d.Wait()
	mustRead(t, d.Path+"/.remora-adopt-0123456789abcdef/data/f", "kept")
}

// TestRollbackCutOff: the old data lies aside after the exchange, and before it the new one.
func TestRollbackCutOff(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	create(t, d, "one")
	write(t, data(t, d, "one")+"/f", "old")
	for _, exchanged := range []bool{false, true} {
		aside := d.Path + "/.remora-new-0123456789abcdef"
		command(t, "mkdir", aside)
		command(t, "btrfs", "subvolume", "snapshot", d.Path+"/one/data", aside+"/data")
		write(t, aside+"/data/f", "new")
		want := "old"
		if exchanged {
			if err := unix.Renameat2(unix.AT_FDCWD, aside+"/data", unix.AT_FDCWD, d.Path+"/one/data", unix.RENAME_EXCHANGE); err != nil {
				t.Fatal(err)
			}
			want = "new"
		}
		mustBeSwept(t, d)
		mustRead(t, data(t, d, "one")+"/f", want)
	}
}

func TestSweepLeavesWhatIsBeingBuilt(t *testing.T) {
	testenv.Require(t, testenv.Btrfs)
	d := openPath(t, mkfs(t))
	p, err := d.pool(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	aside, lock, err := d.NewAside(p.Dir, pooldir.New, passMode)
	if err != nil {
		t.Fatal(err)
	}
	mustList(t, d)
	d.Wait()
	if _, err := os.Stat(d.Path + "/" + aside); err != nil {
		t.Errorf("swept while it was built: %v", err)
	}
	_ = unix.Close(lock)
	mustBeSwept(t, d)
}
