package mount

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	if testing.Short() {
		t.Skip("short: 30 seconds of mounts")
	}
	s := startServer(t)
	secret := filepath.Join(t.TempDir(), "password")
	if err := os.WriteFile(secret, []byte(password+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	table := func(base string) map[string]any {
		return map[string]any{
			"type": "rclone", "device": ":webdav:" + base, "options": []any{"webdav-url=" + s.url()}, "username": username, "password_file": secret,
		}
	}
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver {
			dir := t.TempDir()
			base := filepath.Base(filepath.Dir(dir)) + "-" + filepath.Base(dir)
			s.mkdir(base)
			return pool(t, dir, table(base))
		},
		Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
			old := d.(*driver)
			if err := old.Close(); err != nil {
				t.Error(err)
			}
			return pool(t, filepath.Dir(filepath.Dir(filepath.Dir(old.dir))), table(old.config.Device[len(":webdav:"):]))
		},
		Options: map[string]string{"o": "vfs-read-ahead=1M,umask=022"},
		Deviates: map[string]string{
			"RemoveDestroysData":          "the data is the server's, and to remove a volume only forgets it",
			"CheckRemoveDestroysData":     "as RemoveDestroysData",
			"OwnerAndModeAreKept":         "WebDAV knows neither; of the types only some do",
			"RemoveLeavesWhatLinksLeadTo": "WebDAV has no symbolic links; of the types only some have",
		},
		BadOptions: map[string]string{"o": "nonsense=1", "type": "ext5", "cache-dir": "/tmp", "password_file": "../x"},
	})
}
