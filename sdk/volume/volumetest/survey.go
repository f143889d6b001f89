package volumetest

import (
	"errors"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"github.com/remora-plugins/remora/sdk/errdefs"
	"github.com/remora-plugins/remora/sdk/volume"
)

// surveyDirect holds a driver that tells of all volumes at once to what it tells of each.
func surveyDirect() cases {
	return cases{
		"Survey": func(t *testing.T, c Config) {
			b := newBare(t, c)
			if _, ok := b.Driver.(volume.Surveyor); !ok {
				return
			}
			mustSurvey(t, b)
			for _, name := range []string{"one", "two", "three", "none"} {
				b.create(name)
			}
			two := b.mount("two")
			fill(t, filepath.Join(two, "f"), 1<<20)
			three := b.mount("three")
			fill(t, filepath.Join(three, "f"), 3<<20)
			b.unmount("three", three)
			if _, ok := b.Driver.(volume.Snapshotter); ok {
				b.snapshot("one", "s1", nil)
				b.snapshot("one", "s2", map[string]string{"why": "test"})
				b.snapshot("two", "s1", nil)
			}
			b.remove("none")
			mustSurvey(t, b, "one", "two", "three")
			b.unmount("two", two)
			b.reopenIfPossible()
			mustSurvey(t, b, "one", "two", "three")
			if s, ok := b.Driver.(volume.Snapshotter); ok {
				if err := s.RemoveSnapshot(t.Context(), "one", "s1"); err != nil {
					t.Fatal(err)
				}
			}
			if r, ok := b.Driver.(volume.Resizer); ok {
				if err := r.Resize(t.Context(), "one", c.Resize); err != nil && !errors.Is(err, errdefs.ErrUnsupported) {
					t.Fatal(err)
				}
			}
			mustSurvey(t, b, "one", "two", "three")
		},
	}
}

// mustSurvey compares a survey with what the driver tells of each volume. Some file systems
// count in the background: the two may be a moment apart, and not for long.
func mustSurvey(t *testing.T, b *bare, names ...string) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); ; time.Sleep(100 * time.Millisecond) {
		told := map[string]volume.Figures{}
		for f, err := range b.Driver.(volume.Surveyor).Survey(t.Context()) {
			if errors.Is(err, errdefs.ErrUnsupported) && len(told) == 0 {
				mustKnowNothing(t, b, names...)
				return
			}
			if err != nil {
				t.Fatalf("Survey: %v", err)
			}
			if _, twice := told[f.Name]; twice {
				t.Errorf("%q is told twice", f.Name)
			}
			told[f.Name] = f
		}
		wrong := false
		late := time.Now().After(deadline)
		for _, name := range names {
			f, ok := told[name]
			if !ok {
				t.Fatalf("Survey leaves out %q", name)
			}
			if same(t, b, f) {
				continue
			}
			if wrong = true; late {
				t.Errorf("Survey tells of %q %s, which is not what it tells of it alone", name, text(f))
			}
		}
		if late {
			t.FailNow()
		}
		if !wrong {
			return
		}
	}
}

// mustKnowNothing is for a driver that cannot tell of any volume as its storage is.
func mustKnowNothing(t *testing.T, b *bare, names ...string) {
	t.Helper()
	for _, name := range names {
		if s, ok := b.Driver.(volume.Sizer); ok {
			if _, err := s.Usage(t.Context(), name); !errors.Is(err, errdefs.ErrUnsupported) {
				t.Errorf("Survey cannot tell of any volume, and Usage of %q is %v", name, err)
			}
		}
		if _, ok := b.Driver.(volume.Snapshotter); ok {
			t.Error("Survey cannot tell of any volume, and there are snapshots of them")
		}
	}
}

// same tells whether figures are what the driver tells of one volume.
func same(t *testing.T, b *bare, f volume.Figures) bool {
	t.Helper()
	if s, ok := b.Driver.(volume.Sizer); ok {
		u, err := s.Usage(t.Context(), f.Name)
		switch {
		case errors.Is(err, errdefs.ErrUnsupported):
			if f.Usage != nil {
				return false
			}
		case err != nil:
			t.Fatalf("Usage: %v", err)
		case f.Usage == nil || *f.Usage != u:
			return false
		}
	}
	if s, ok := b.Driver.(volume.Snapshotter); ok {
		all, err := s.Snapshots(t.Context(), f.Name)
		if err != nil {
			t.Fatalf("Snapshots: %v", err)
		}
		return f.Snapshots != nil && *f.Snapshots == len(all)
	}
	return f.Snapshots == nil
}

func text(f volume.Figures) string {
	usage, snapshots := "no usage", "no snapshots"
	if f.Usage != nil {
		usage = fmt.Sprintf("%+v", *f.Usage)
	}
	if f.Snapshots != nil {
		snapshots = fmt.Sprintf("%d snapshots", *f.Snapshots)
	}
	return usage + " and " + snapshots
}
