package control_test

import (
	"errors"
	"strings"
	"testing"
)

func TestErrorIsOneLine(t *testing.T) {
	s := &service{err: errors.Join(errors.New("disk: on fire"), errors.New("close: broken"))}
	for _, method := range []string{"Volume.Remove", "Daemon.Reconcile"} {
		if w := post(s, "/"+method, `{}`); !strings.Contains(w.Body.String(), `"disk: on fire; close: broken"`) {
			t.Errorf("%s: answer is %s", method, w.Body)
		}
	}
}
