package snapshot

import (
	"context"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"

	"github.com/remora-plugins/remora/internal/control"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// sh runs a script in a directory.
func sh(t *testing.T, dir, script string) {
	t.Helper()
	cmd := exec.Command("/bin/sh", "-ec", script)
	cmd.Dir = dir
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Fatalf("%s: %v\n%s", script, err, out)
	}
}

// pair makes two trees that are the same.
func pair(t *testing.T) (a, b string) {
	t.Helper()
	dir := t.TempDir()
	sh(t, dir, `mkdir -p a/d/e a/gone/in; echo 1 >a/f; echo 2 >a/d/g; echo 3 >a/d/e/h; echo 4 >a/gone/in/x; ln -s f a/link; mkfifo a/pipe; echo s >'a/odd
name'; cp -a a b`)
	return filepath.Join(dir, "a"), filepath.Join(dir, "b")
}

func diff(t *testing.T, a, b string) (lines []string, sum control.Diff) {
	t.Helper()
	sum, err := Diff(t.Context(), a, b, func(c control.Change) {
		lines = append(lines, strings.TrimSpace(c.Kind+" "+c.Path+" "+strings.Join(c.What, ",")))
	})
	if err != nil {
		t.Fatal(err)
	}
	return lines, sum
}

func TestDiff(t *testing.T) {
	a, b := pair(t)
	if lines, sum := diff(t, a, b); len(lines) > 0 || sum != (control.Diff{}) {
		t.Errorf("the same differ: %q", lines)
	}
	sh(t, b, `rm -r gone; mkdir -p new/in; echo 5 >new/in/y; echo longer >f; chmod 700 d; touch -d 2001-01-01 d/g
ln -sfn d link; rm pipe; mkdir pipe; echo 6 >pipe/z; echo 7 >d/e/i`)
	got, sum := diff(t, a, b)
	want := []string{
		"changed d mode", "added d/e/i", "changed d/g mtime", "changed f size,mtime", "removed gone", "removed gone/in", "removed gone/in/x",
		"changed link target", "added new", "added new/in", "added new/in/y", "changed pipe type", "added pipe/z",
	}
	if d := cmp.Diff(want, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
	if sum != (control.Diff{Added: 5, Removed: 3, Changed: 5}) {
		t.Errorf("counted %+v", sum)
	}
	// The other way round it is the opposite.
	back, _ := diff(t, b, a)
	for i, line := range want {
		want[i] = strings.NewReplacer("added", "removed", "removed", "added").Replace(line)
	}
	slices.Sort(want)
	slices.Sort(back)
	if d := cmp.Diff(want, back); d != "" {
		t.Errorf("backwards (-want +got):\n%s", d)
	}
}

// A link that leads out of the tree is a link, and nothing behind it is looked at.
func TestDiffStaysInside(t *testing.T) {
	a, b := pair(t)
	sh(t, b, `rm -r gone; ln -s / gone`)
	got, _ := diff(t, a, b)
	if d := cmp.Diff([]string{"changed gone type", "removed gone/in", "removed gone/in/x"}, got); d != "" {
		t.Errorf("(-want +got):\n%s", d)
	}
}

func TestDiffErrors(t *testing.T) {
	a, b := pair(t)
	each := func(control.Change) {}
	if _, err := Diff(t.Context(), a, b+"/none", each); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("with a tree that is not there: %v", err)
	}
	if _, err := Diff(t.Context(), b+"/none", a, each); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("with a tree that is not there: %v", err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := Diff(ctx, a, b, each); !errors.Is(err, context.Canceled) {
		t.Errorf("ended: %v", err)
	}
}

// A tree that changes all the time is compared to the end.
func TestDiffOfWhatLives(t *testing.T) {
	a, b := pair(t)
	ctx, stop := context.WithCancel(t.Context())
	done := make(chan struct{})
	go func() {
		defer close(done)
		for ctx.Err() == nil {
			dir := filepath.Join(b, "live")
			_ = os.MkdirAll(filepath.Join(dir, "x", "y"), 0o700)
			_ = os.WriteFile(filepath.Join(dir, "x", "f"), nil, 0o600)
			_ = os.RemoveAll(dir)
			_ = os.WriteFile(dir, nil, 0o600)
			_ = os.Remove(dir)
		}
	}()
	for end := time.Now().Add(300 * time.Millisecond); time.Now().Before(end); {
		diff(t, a, b)
	}
	stop()
	<-done
}

// A container puts a pipe in the place of a directory that was just seen: nobody writes to it, and to
// open it for reading would never end.
func TestDiffPipeInPlaceOfDirectory(t *testing.T) {
	a, b := t.TempDir(), t.TempDir()
	sub := filepath.Join(b, "sub")
	if err := os.Mkdir(sub, 0o700); err != nil {
		t.Fatal(err)
	}
	done := make(chan error, 1)
	go func() {
		_, err := Diff(t.Context(), a, b, func(control.Change) {
			_, _ = os.Remove(sub), syscall.Mkfifo(sub, 0o600)
		})
		done <- err
	}()
	select {
	case err := <-done:
		if err != nil {
			t.Error(err)
		}
	case <-time.After(10 * time.Second):
		w, err := os.OpenFile(sub, os.O_WRONLY, 0) // lets it end
		t.Errorf("waits for a pipe (%v)", err)
		_ = w.Close()
		<-done
	}
}
