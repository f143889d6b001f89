package backup

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"github.com/kopia/kopia/repo/maintenance"

	"github.com/remora-plugins/remora/internal/config"
)

// childEnv makes the test binary a process that does childVerb to what it names, until it is
// killed.
const (
	childEnv  = "BACKUP_TEST_CHILD"
	childVerb = "BACKUP_TEST_VERB"
)

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		if err := child(context.Background(), dir, os.Getenv(childVerb)); err != nil {
			panic(err)
		}
		os.Exit(0)
	}
	os.Exit(m.Run())
}

func childPlace(dir string) Place {
	return Place{
		Repository: config.Repository{Name: "near", URL: &url.URL{Scheme: "file", Path: dir + "/repository"}, PasswordFile: dir + "/password"},
		Dir:        dir + "/state", Host: "here", checkpoint: 20 * time.Millisecond,
	}
}

func child(ctx context.Context, dir, verb string) error {
	p := childPlace(dir)
	r, err := Open(ctx, p)
	if err != nil {
		return err
	}
	all, err := r.List(ctx)
	if err != nil {
		return err
	}
	_, _ = os.Stdout.WriteString("go\n") // the parent notices otherwise
	switch verb {
	case "create":
		_, err = r.Create(ctx, Request{Pool: "p", Volume: "v", Dir: dir + "/data", PointInTime: true})
	case "restore":
		_, err = r.Restore(ctx, all[0].ID, dir+"/restored", nil)
	case "rm":
		for _, b := range all[1:] { // the first is to be there in the end
			if err = r.Remove(ctx, b.ID); err != nil {
				break
			}
		}
	case "prune":
		err = r.maintain(ctx, maintenance.SafetyNone)
	case "repair":
		_, err = Repair(ctx, p, false, nil)
	}
	return err
}

// A process that is killed at any moment of anything leaves the old backups whole, nothing in
// the way of the next one, no backup that is half there, and nothing that is damaged.
func TestSoakKilled(t *testing.T) {
	times, rnd := soak(t, 10)
	dir := t.TempDir()
	put(t, dir+"/password", "secret\n")
	p := childPlace(dir)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	text := func(n int) string { return string(must[[]byte](t)(chance(rnd, n))) }
	put(t, dir+"/data/a", text(8<<20))
	r := must[*Repository](t)(Open(t.Context(), p))
	first := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir + "/data", PointInTime: true}))
	if err := r.Close(t.Context()); err != nil {
		t.Fatal(err)
	}
	want := tree(t, dir+"/data")
	verbs := []string{"create", "create", "rm", "create", "prune", "restore", "create", "repair"}
	killed := map[string]int{}
	for i := range times {
		verb := verbs[i%len(verbs)]
		if verb == "create" {
			put(t, fmt.Sprintf("%s/data/b%d", dir, i%5), text(12<<20))
		}
		if err := os.RemoveAll(dir + "/restored"); err != nil {
			t.Fatal(err)
		}
		cmd := exec.CommandContext(t.Context(), os.Args[0])
		cmd.Env = append(os.Environ(), childEnv+"="+dir, childVerb+"="+verb)
		var said bytes.Buffer
		cmd.Stderr = &said
		out := must[*os.File](t)(pipe(cmd))
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		if n, err := out.Read(make([]byte, 3)); n != 3 || err != nil {
			t.Fatalf("round %d: the child does not begin: %v: %s", i, err, said.String())
		}
		time.Sleep(time.Duration(rnd.IntN(150)) * time.Millisecond) // another moment each time
		_ = cmd.Process.Kill()                                      // it may have ended by itself
		switch err := cmd.Wait(); {
		case err == nil:
		case cmd.ProcessState.ExitCode() == -1:
			killed[verb]++
		default:
			t.Fatalf("round %d: %s: %v: %s", i, verb, err, said.String())
		}
		_ = out.Close() // read enough
		all := must[[]Backup](t)(listed(t, p))
		if !slices.ContainsFunc(all, func(b Backup) bool { return b.ID == first.ID }) {
			t.Fatalf("round %d: %s: the first backup is not there", i, verb)
		}
		if i%10 == 9 || i == times-1 {
			if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != len(all) || len(v.Damaged) > 0 {
				t.Fatalf("round %d: %s: verified: %+v", i, verb, v)
			}
		}
	}
	t.Logf("killed in the middle: %v", killed)
	if len(killed) == 0 {
		t.Error("no process was killed in the middle")
	}
	if seen := must[Repaired](t)(Repair(t.Context(), p, true, nil)); seen.Damaged() {
		t.Errorf("damaged: %+v", seen)
	}
	last := must[Backup](t)(reopened(t, p).Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir + "/data", PointInTime: true}))
	to := t.TempDir()
	must[Backup](t)(reopened(t, p).Restore(t.Context(), first.ID, to, nil))
	same(t, want, tree(t, to))
	to = t.TempDir()
	must[Backup](t)(reopened(t, p).Restore(t.Context(), last.ID, to, nil))
	same(t, tree(t, dir+"/data"), tree(t, to))
	if left := must[[]string](t)(filepath.Glob(p.Dir + "/*.mlock")); len(left) > 1 {
		t.Errorf("left are %q", left)
	}
}

func pipe(cmd *exec.Cmd) (*os.File, error) {
	out, err := cmd.StdoutPipe()
	if err != nil {
		return nil, err
	}
	return out.(*os.File), nil
}

func listed(t *testing.T, p Place) ([]Backup, error) {
	r, err := Open(t.Context(), p)
	if err != nil {
		return nil, err
	}
	all, err := r.List(t.Context())
	if err2 := r.Close(t.Context()); err == nil {
		err = err2
	}
	return all, err
}

// chance returns bytes that nothing compresses, the same for a seed.
func chance(rnd *rand.Rand, n int) ([]byte, error) {
	var seed [32]byte
	for i := range seed {
		seed[i] = byte(rnd.Uint32())
	}
	b := make([]byte, n)
	_, err := rand.NewChaCha8(seed).Read(b)
	return b, err
}

// Checkpoints remove nothing but each other. Kopia's own policy, which it asks at each, keeps
// ten of an hour.
func TestCheckpointsKeepBackups(t *testing.T) {
	p := newPlace(t)
	p.checkpoint = time.Millisecond
	r, dir := opened(t, p), t.TempDir()
	const n = 13
	for i := range n {
		put(t, dir+"/a", fmt.Sprint(i))
		must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	}
	put(t, dir+"/b", noise(t, 64<<20))
	must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir}))
	if all := must[[]Backup](t)(reopened(t, p).List(t.Context())); len(all) != n+1 {
		t.Errorf("there are %d backups, want %d", len(all), n+1)
	}
}

// Who is gone keeps a repository in order no longer.
func TestTakeOver(t *testing.T) {
	p := newPlace(t)
	if err := opened(t, p).Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	other := p
	other.Host, other.Dir = "there", t.TempDir()
	r := reopened(t, other)
	err := r.Maintain(t.Context())
	wants(t, err, err, `repository "near": the host that keeps it in order is here`)
	if err := r.TakeOver(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := reopened(t, other).Maintain(t.Context()); err != nil {
		t.Error(err)
	}
	err = reopened(t, p).Maintain(t.Context())
	wants(t, err, err, `repository "near": the host that keeps it in order is there`)
}
