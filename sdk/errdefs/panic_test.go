package errdefs_test

import (
	"errors"
	"fmt"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestRecoveredShowsNoSecret(t *testing.T) {
	recovered := func(f func()) (v any) {
		defer func() { v = recover() }()
		f()
		return nil
	}
	type request struct{ Password string }
	var none []int
	for name, tt := range map[string]struct {
		f    func()
		want string
	}{
		"text":    {func() { panic("hunter2") }, "string"},
		"struct":  {func() { panic(request{"hunter2"}) }, "errdefs_test.request"},
		"foreign": {func() { panic(errors.New("login as hunter2")) }, "*errors.errorString"},
		"runtime": {func() { none[0]++ }, "runtime.boundsError: runtime error: index out of range [0] with length 0"},
		"wrapped": {func() { panic(fmt.Errorf("volume %q: %w", "v", errdefs.ErrInUse)) }, `*fmt.wrapError: volume "v": in use`},
		"ours":    {func() { panic(errdefs.Errorf(errdefs.ErrInUse, "two\nlines")) }, "*errdefs.classed: two; lines"},
		"nil":     {func() { panic(nil) }, "*runtime.PanicNilError: panic called with nil argument"},
	} {
		if got := errdefs.Recovered(recovered(tt.f)); got != tt.want {
			t.Errorf("%s: %q, want %q", name, got, tt.want)
		}
	}
}
