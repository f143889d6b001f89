package sshfs

import (
	"path/filepath"
	"testing"

	"github.com/remora-plugins/remora/sdk/volume"
	"github.com/remora-plugins/remora/sdk/volume/volumetest"
)

func TestConformance(t *testing.T) {
	s := startServer(t)
	table := func(dir string) map[string]any {
		return map[string]any{"base": s.sshcmd(filepath.Base(dir)), "port": int64(s.port), "identity_file": s.key}
	}
	volumetest.Run(t, volumetest.Config{
		New: func(t *testing.T) volume.Driver {
			dir := t.TempDir()
			return s.pool(t, dir, table(dir+"-"+filepath.Base(filepath.Dir(dir))))
		},
		Reopen: func(t *testing.T, d volume.Driver) volume.Driver {
			old := d.(*driver)
			if err := old.Close(); err != nil {
				t.Error(err)
			}
			return s.pool(t, filepath.Dir(filepath.Dir(filepath.Dir(old.dir))), map[string]any{
				"base": old.config.Base, "port": int64(s.port), "identity_file": s.key,
			})
		},
		Options: map[string]string{"identity_file": s.key, "ServerAliveInterval": "2"},
		Deviates: map[string]string{
			"RemoveDestroysData": "the data is the server's, and to remove a volume only forgets it", "CheckRemoveDestroysData": "as RemoveDestroysData",
		},
		BadOptions: map[string]string{"port": "2222", "reconnect": "perhaps", "ProxyCommand": "touch /tmp/x", "identity_file": "../id"},
	})
}
