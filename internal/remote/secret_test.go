package remote_test

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
)

// TestReadSecret: what is no file of passwords is an error, and neither waited for nor read to an end that it has not.
func TestReadSecret(t *testing.T) {
	dir := t.TempDir()
	file, pipe, large := filepath.Join(dir, "file"), filepath.Join(dir, "pipe"), filepath.Join(dir, "large")
	if err := os.WriteFile(file, []byte("hunter2\r\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(large, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := syscall.Mkfifo(pipe, 0o600); err != nil {
		t.Fatal(err)
	}
	if got, err := remote.ReadSecret(file); err != nil || string(got) != "hunter2\r\n" {
		t.Errorf("read %q, %v", got, err)
	}
	for path, want := range map[string]string{
		pipe: "not a regular file", "/dev/zero": "not a regular file", dir: "not a regular file", large: "too large", filepath.Join(dir, "gone"): "no such file",
	} {
		told := make(chan error, 1)
		go func() { _, err := remote.ReadSecret(path); told <- err }()
		select {
		case err := <-told:
			if err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("%s: %v", path, err)
			}
		case <-time.After(10 * time.Second):
			t.Errorf("%s is waited for", path)
		}
	}
}
