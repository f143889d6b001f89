package runtime

import (
	"os"
	"path/filepath"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// TestSecretIsAPipe: nobody waits for whoever is to write a secret.
func TestSecretIsAPipe(t *testing.T) {
	name := filepath.Join(t.TempDir(), "pipe")
	noErr(t, unix.Mkfifo(name, 0o600))
	read := make(chan error, 1)
	go func() {
		_, err := readSecret(name)
		read <- err
	}()
	select {
	case err := <-read:
		wants(t, err, "want a file")
	case <-time.After(5 * time.Second):
		t.Error("it is waited for")
		noErr(t, os.WriteFile(name, nil, 0)) // so that it ends
		<-read
	}
}
