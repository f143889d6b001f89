package backup

import (
	"flag"
	"net/url"
	"os"
	"path/filepath"
	"testing"
	"time"
)

var update = flag.Bool("update", false, "make the repository in testdata anew")

// What this kopia wrote is read by every later one: the repository in testdata was made by
// v0.23.1, and is made anew by nothing but the flag -update.
func TestGolden(t *testing.T) {
	p := newPlace(t)
	put(t, p.PasswordFile, "golden\n")
	golden := must[string](t)(filepath.Abs("testdata/golden"))
	if *update {
		if err := os.RemoveAll(golden); err != nil {
			t.Fatal(err)
		}
		made := p
		made.URL = &url.URL{Scheme: "file", Path: golden}
		dir := t.TempDir()
		put(t, dir+"/sub/hello", "hello\n")
		if err := os.Chtimes(dir+"/sub/hello", time.Unix(1e9, 0), time.Unix(1e9, 0)); err != nil {
			t.Fatal(err)
		}
		r := opened(t, made)
		must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: dir, PointInTime: true, Kind: KindDatabase, Labels: map[string]string{"a": "b"}}))
	}
	if err := os.CopyFS(p.URL.Path, os.DirFS(golden)); err != nil {
		t.Fatal(err)
	}
	r := reopened(t, p)
	all := must[[]Backup](t)(r.List(t.Context()))
	if len(all) != 1 || all[0].Volume != "v" || all[0].Kind != KindDatabase || !all[0].PointInTime || all[0].Labels["a"] != "b" || all[0].Size != 6 {
		t.Fatalf("there is %+v", all)
	}
	to := t.TempDir()
	must[Backup](t)(r.Restore(t.Context(), all[0].ID, to, nil))
	if e := tree(t, to)["sub/hello"]; e.Text != "hello\n" || e.Time.Unix() != 1e9 {
		t.Errorf("restored is %+v", e)
	}
	more := must[Backup](t)(r.Create(t.Context(), Request{Pool: "p", Volume: "v", Dir: to})) // and is written to
	if more.Kind != KindDatabase || more.Stored > 64<<10 {
		t.Errorf("the next backup is %+v", more)
	}
	if v := must[Verified](t)(Verify(t.Context(), p, nil, nil)); v.Backups != 2 || len(v.Damaged) > 0 {
		t.Errorf("verified: %+v", v)
	}
}
