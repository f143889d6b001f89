package store

import (
	"bytes"
	"context"
	"fmt"
	"log/slog"
	"math/rand/v2"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
)

// verbEnv makes the child do one thing, and end.
const verbEnv = "STORE_TEST_VERB"

func childVerb(dir, verb string) error {
	runtime.LockOSThread() // strace counts the calls of each thread
	s, err := Open(dir, slog.New(slog.DiscardHandler))
	if err != nil {
		return err
	}
	ctx := context.Background()
	one, err := s.Get("one")
	if err != nil {
		return err
	}
	switch verb {
	case "create":
		var failed failing
		_, err = s.Create(ctx, "two:latest", bytes.NewReader(bundle(&failed, "created", content("created")...)))
	case "install":
		defer s.Hold()()
		img, ierr := image(ctx, s, "installed")
		if err = ierr; err == nil {
			_, err = s.Install(ctx, "two:latest", "two", img, nil, nil)
		}
	case "upgrade":
		defer s.Hold()()
		img, ierr := image(ctx, s, "upgraded")
		if err = ierr; err == nil {
			_, err = s.Upgrade(ctx, one.Plugin.ID, "one", img, nil, nil)
		}
	case "save":
		one.Plugin.Settings.Env = []string{"E=set-"}
		err = s.Save(one)
	case "remove":
		err = s.Remove(one.Plugin.ID)
	}
	return err
}

// steps are the system calls that change what names what, or bring it to the disk.
var steps = []string{"mkdirat", "renameat", "unlinkat", "fsync", "syncfs"}

// A process that is killed at any one of its steps leaves what was, or what was to be.
func TestKilledAtEachStep(t *testing.T) {
	testenv.Require(t, testenv.Root, testenv.Strace)
	start := t.TempDir()
	s := opened(t, start)
	_ = must[Record](t)(s.Create(t.Context(), "one:latest", bytes.NewReader(bundle(t, "before", content("before")...))))
	check(t, s.Close())
	want := map[string][2][]string{ // before and after, of name and version
		"create": {{"one:latest before"}, {"one:latest before", "two:latest created"}}, "install": {{"one:latest before"}, {"one:latest before", "two:latest installed"}},
		"upgrade": {{"one:latest before"}, {"one:latest upgraded"}}, "save": {{"one:latest before"}, {"one:latest before"}}, "remove": {{"one:latest before"}, nil},
	}
	// Each in a soak; else every third or so, others each time.
	stride, rnd := 3, rand.New(rand.NewPCG(testenv.Seed(t), 0)) //nolint:gosec // chance, and no secret
	switch {
	case testenv.Soak():
		stride = 1
	case testing.Short():
		stride = 9
	}
	kills := 0
	for verb, ends := range want {
		seen := map[bool]bool{}
		for _, step := range steps {
			for n := 1 + rnd.IntN(stride); ; n += stride {
				dir := t.TempDir()
				check(t, os.CopyFS(dir, os.DirFS(start)))
				killed := runKilled(t, dir, verb, step, n)
				s := must[*Store](t)(Open(dir, slog.New(slog.NewTextHandler(t.Output(), nil))))
				consistent(t, s)
				var have []string
				for _, r := range s.Records() {
					have = append(have, r.Plugin.Name+" "+r.Plugin.Config.Description)
				}
				check(t, s.Close())
				after := slices.Equal(have, ends[1])
				if !after && (!killed || !slices.Equal(have, ends[0])) {
					t.Errorf("%v", have)
				}
				if t.Failed() {
					t.Fatalf("%s, killed at %s %d", verb, step, n)
				}
				if !killed {
					break
				}
				seen[after] = true
				kills++
			}
		}
		if verb != "save" && testenv.Soak() && (!seen[false] || !seen[true]) {
			t.Errorf("%s: the kills found no more than %v", verb, seen)
		}
	}
	t.Logf("killed %d times", kills)
}

// runKilled does something in a process that is killed at the n-th call of a kind, and says whether it was.
func runKilled(t *testing.T, dir, verb, step string, n int) bool {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "strace", "--follow-forks", "--quiet=all", "--output=/dev/null",
		"--trace="+step, fmt.Sprintf("--inject=%s:signal=SIGKILL:when=%d", step, n), os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"="+dir, verbEnv+"="+verb)
	var said bytes.Buffer
	cmd.Stderr = &said
	err := cmd.Run()
	if err != nil && said.Len() > 0 {
		t.Fatalf("%s: %v: %s", verb, err, said.String())
	}
	return err != nil
}
