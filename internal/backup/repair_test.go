package backup

import (
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/internal/testenv"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// blobs returns the files of the repository whose names begin so.
func blobs(t *testing.T, p Place, prefix string) (found []string) {
	t.Helper()
	err := filepath.WalkDir(p.URL.Path, func(name string, d fs.DirEntry, err error) error {
		rel := strings.ReplaceAll(strings.TrimPrefix(name, p.URL.Path), "/", "")
		if err == nil && d.Type().IsRegular() && strings.HasPrefix(rel, prefix) {
			found = append(found, name)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return found
}

// restores wants a backup to be what is in a directory.
func restores(t *testing.T, p Place, m mode, id, dir string) {
	t.Helper()
	r := must[*Repository](t)(p.open(t.Context(), m))
	to := t.TempDir()
	must[Backup](t)(r.Restore(t.Context(), id, to, nil))
	same(t, tree(t, dir), tree(t, to))
	if err := r.Close(t.Context()); err != nil {
		t.Error(err)
	}
}

// flip changes one byte of a file; to do it again undoes it.
func flip(t *testing.T, name string, at float64) {
	t.Helper()
	b := must[[]byte](t)(os.ReadFile(name))
	b[int(float64(len(b))*at)] ^= 1
	if err := errors.Join(os.Chmod(name, 0o600), os.WriteFile(name, b, 0o600)); err != nil {
		t.Fatal(err)
	}
}

// kindOf is the kind of a blob of a repository in a directory.
func kindOf(p Place, name string) string {
	rel := strings.ReplaceAll(strings.TrimPrefix(name, p.URL.Path), "/", "")
	for _, kind := range []string{".shards", "remora-copy-", "kopia.repository", "kopia.blobcfg", "xn", "p", "q"} {
		if strings.HasPrefix(rel, kind) {
			return kind
		}
	}
	return "none" // what says something by its name alone
}

// soak is how many times something is done: few, unless long tests are asked for. What it does
// by chance it does again with the same seed.
func soak(t *testing.T, few int) (times int, r *rand.Rand) {
	t.Helper()
	return testenv.Rounds(few), rand.New(rand.NewPCG(testenv.Seed(t), 0))
}

// One byte is flipped, anywhere in a repository. What is hit is told in one line with the
// command that mends it; that mends it; and all that can be restored is what it was.
func TestSoakFlippedByte(t *testing.T) {
	times, r := soak(t, 5)
	p := newPlace(t)
	if err := Init(t.Context(), p); err != nil {
		t.Fatal(err)
	}
	one, two := t.TempDir(), t.TempDir()
	put(t, one+"/sub/a", noise(t, 1<<20))
	put(t, two+"/b", noise(t, 1<<20))
	create := func(volume, dir string) Backup {
		t.Helper()
		rep := must[*Repository](t)(Open(t.Context(), p))
		b := must[Backup](t)(rep.Create(t.Context(), Request{Pool: "p", Volume: volume, Dir: dir, PointInTime: true, Reread: true}))
		if err := rep.Close(t.Context()); err != nil {
			t.Error(err)
		}
		return b
	}
	was := map[string]string{create("one", one).ID: one, create("two", two).ID: two}
	hits := map[string]int{}
	for i := range times {
		byKind := map[string][]string{}
		for _, name := range blobs(t, p, "") {
			byKind[kindOf(p, name)] = append(byKind[kindOf(p, name)], name)
		}
		delete(byKind, "none")
		kinds := slices.Sorted(maps.Keys(byKind))
		kind := kinds[(i+r.IntN(2))%len(kinds)]
		name := byKind[kind][r.IntN(len(byKind[kind]))]
		at := r.Float64()
		flip(t, name, at)
		round := fmt.Sprintf("round %d, %s at %.4f", i, filepath.Base(name), at)
		_, err := Verify(t.Context(), p, nil, nil)
		if err != nil && !strings.Contains(strings.Join(errdefs.Hints(err), " "), "remora backup repair near") {
			t.Errorf("%s: no way out is told: %v, %q", round, err, errdefs.Hints(err))
		}
		seen := must[Repaired](t)(Repair(t.Context(), p, true, nil))
		if err != nil && !seen.Damaged() {
			t.Errorf("%s: a dry run sees nothing: %v", round, err)
		}
		done := must[Repaired](t)(Repair(t.Context(), p, false, nil))
		if fmt.Sprint(done) != fmt.Sprint(seen) {
			t.Errorf("%s: said %+v, did %+v", round, seen, done)
		}
		if done.Damaged() {
			hits[kind]++
		}
		if done.Pieces > 0 { // what the volumes have still mends the old backups
			if kind != "p" {
				t.Errorf("%s: pieces are gone", round)
			}
			create("one", one)
			create("two", two)
		}
		if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups < len(was) || len(v.Damaged) > 0 {
			t.Fatalf("%s: then, %+v", round, v)
		}
		for id, dir := range was {
			restores(t, p, cached, id, dir)
		}
		if again := must[Repaired](t)(Repair(t.Context(), p, true, nil)); again.Damaged() || again.Copies > 0 {
			t.Errorf("%s: mended, it is %+v", round, again)
		}
	}
	t.Logf("hits: %v", hits)
	for _, kind := range []string{".shards", "kopia.repository", "kopia.blobcfg", "xn", "p", "q"} {
		if hits[kind] == 0 && times > 20 {
			t.Errorf("%s was not hit", kind)
		}
	}
}

// The file that says in which directories blobs lie is lost, or says something else.
func TestRepairOfLayout(t *testing.T) {
	p := newPlace(t)
	rep := opened(t, p)
	dir := t.TempDir()
	put(t, dir+"/sub/a", noise(t, 1<<20))
	b := must[Backup](t)(rep.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	name := p.URL.Path + "/.shards"
	if text := must[[]byte](t)(os.ReadFile(name)); string(text) != layout {
		t.Fatalf("it is %q, and the same is written anew: %q", text, layout)
	}
	for _, bad := range []string{"", "z", strings.Replace(layout, "3", "2", 1), strings.Replace(layout, "20", "60", 1)} {
		put(t, name, bad)
		_, err := Open(t.Context(), p)
		wants(t, err, err, `repository "near": a part of it is damaged: .shards`)
		if hints := errdefs.Hints(err); len(hints) != 1 || hints[0] != "mend it: remora backup repair near" {
			t.Errorf("hints are %q", hints)
		}
		for _, dry := range []bool{true, false} {
			if done := must[Repaired](t)(Repair(t.Context(), p, dry, nil)); len(done.Mended) != 1 || done.Pieces > 0 {
				t.Errorf("%q, %v: %+v", bad, dry, done)
			}
		}
		restores(t, p, cached, b.ID, dir)
	}
	if err := os.Remove(name); err != nil {
		t.Fatal(err)
	}
	restores(t, p, cached, b.ID, dir)
	if text := must[[]byte](t)(os.ReadFile(name)); string(text) != layout {
		t.Errorf("written anew it is %q", text)
	}
}

// A repository without copies, as older versions made them, loses its index.
func TestRepairWithoutCopies(t *testing.T) {
	p := newPlace(t)
	rep := opened(t, p)
	dir := t.TempDir()
	put(t, dir+"/sub/a", noise(t, 1<<20))
	b := must[Backup](t)(rep.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	for _, name := range blobs(t, p, copyPrefix) {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	indexes := blobs(t, p, "xn")
	for _, name := range indexes {
		flip(t, name, 0.5)
	}
	_, err := Open(t.Context(), p)
	wants(t, err, err, "a part of it is damaged")
	done := must[Repaired](t)(Repair(t.Context(), p, false, nil))
	if len(done.Indexes) != len(indexes) || done.Pieces > 0 || done.Copies == 0 {
		t.Errorf("done is %+v, of %d indexes", done, len(indexes))
	}
	restores(t, p, cached, b.ID, dir)
	if again := must[Repaired](t)(Repair(t.Context(), p, false, nil)); again.Damaged() || again.Copies > 0 {
		t.Errorf("mended, it is %+v", again)
	}
}

// A pack of metadata that is lost, as by a check of the file system, comes back from its copy.
func TestRepairOfWhatIsLost(t *testing.T) {
	p := newPlace(t)
	rep := opened(t, p)
	dir := t.TempDir()
	put(t, dir+"/sub/a", noise(t, 1<<20))
	b := must[Backup](t)(rep.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true}))
	lost := blobs(t, p, "q")
	for _, name := range lost {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	_, err := Verify(t.Context(), p, nil, nil)
	wants(t, err, err, "a part of it is missing")
	for _, dry := range []bool{true, false} {
		done := must[Repaired](t)(Repair(t.Context(), p, dry, nil))
		if len(done.Mended) != len(lost) || done.Pieces > 0 || done.Copies > 0 {
			t.Errorf("of %d that are lost, %v: %+v", len(lost), dry, done)
		}
	}
	restores(t, p, cached, b.ID, dir)
	if again := must[Repaired](t)(Repair(t.Context(), p, false, nil)); again.Damaged() || again.Copies > 0 {
		t.Errorf("mended, it is %+v", again)
	}
}

// A prune makes the copies that older versions did not make, and removes those of what others
// have removed.
func TestMaintainMakesCopies(t *testing.T) {
	p := newPlace(t)
	rep := opened(t, p)
	before := blobs(t, p, copyPrefix)
	for _, name := range before {
		if err := os.Remove(name); err != nil {
			t.Fatal(err)
		}
	}
	at := strings.LastIndex(before[0], "copy-") + len("copy-")
	put(t, before[0][:at]+"q0123456789abcdef0123456789.f", "x")
	if n := len(blobs(t, p, copyPrefix)); n != 1 {
		t.Fatalf("there are %d copies", n)
	}
	if err := rep.Maintain(t.Context()); err != nil {
		t.Fatal(err)
	}
	if seen := must[Repaired](t)(Repair(t.Context(), p, true, nil)); seen.Copies > 0 || seen.Damaged() {
		t.Errorf("then, %+v", seen)
	}
	for _, kind := range []string{"q", "xn"} {
		if n, copies := len(blobs(t, p, kind)), len(blobs(t, p, copyPrefix+kind)); n == 0 || n != copies {
			t.Errorf("of %d blobs %s there are %d copies: %q", n, kind, copies, blobs(t, p, copyPrefix+kind))
		}
	}
}

// What kopia's own program has changed is no damage: the password above all.
func TestRepairAfterPasswordChange(t *testing.T) {
	p := newPlace(t)
	rep := opened(t, p)
	copies := map[string][]byte{} // which that program leaves as they are
	for _, name := range blobs(t, p, copyPrefix+"kopia") {
		copies[name] = must[[]byte](t)(os.ReadFile(name))
	}
	if len(copies) != 2 {
		t.Fatalf("there are %d copies of formats", len(copies))
	}
	if err := rep.rep.FormatManager().ChangePassword(t.Context(), "another"); err != nil {
		t.Fatal(err)
	}
	for name, b := range copies {
		put(t, name, string(b))
	}
	put(t, p.PasswordFile, "another\n")
	if done := must[Repaired](t)(Repair(t.Context(), p, false, nil)); done.Damaged() {
		t.Errorf("done is %+v", done)
	}
	reopened(t, p)
}
