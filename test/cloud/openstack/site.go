package openstack

import (
	"bytes"
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/test/cloud/process"
)

// makeSite makes a directory of Python's in which OpenStack's access to databases begins each transaction as one
// that may write. SQLite waits for its turn there. In the midst of one that has only read before it cannot, and
// Cinder, which knows databases that can, leaves the volume in "creating" for ever.
func (c *Cloud) makeSite(ctx context.Context) error {
	out, err := process.Run(ctx, nil, "/usr/bin/python3", "-c", "import oslo_db; print(oslo_db.__path__[0])")
	if err != nil {
		return err
	}
	site := c.path("site/oslo_db")
	if err := os.CopyFS(site, os.DirFS(strings.TrimSpace(out))); err != nil {
		return err
	}
	file := filepath.Join(site, "sqlalchemy", "engines.py")
	text, err := os.ReadFile(file)
	if err != nil {
		return err
	}
	begin := []byte(`sqlalchemy.text("BEGIN")`)
	if bytes.Count(text, begin) != 1 {
		return errors.New("oslo_db: it does not begin a transaction of SQLite as it did")
	}
	return os.WriteFile(file, bytes.Replace(text, begin, []byte(`sqlalchemy.text("BEGIN IMMEDIATE")`), 1), 0o600)
}
