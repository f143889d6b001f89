package dir

import (
	"path/filepath"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

type config struct {
	Path string `opt:"path" help:"directory of the pool, which must exist; without it one is made at volumes/POOL below the daemon's state directory"`
}

// Check implements [catalog.Checker].
func (c *config) Check() error { return catalog.CheckPath("path", c.Path) }

type options struct {
	Mountpoint string         `opt:"mountpoint" help:"absolute path of a directory elsewhere that holds the data; made if missing, never deleted"`
	From       string         `opt:"from" help:"absolute path of a directory whose tree is copied in when the volume is made"`
	Size       *catalog.Bytes `opt:"size" help:"how much the volume may hold; wants project quota on the pool's file system"`
	catalog.Owner
}

// decode reads the options of a volume and checks what their tags cannot say.
func (d *driver) decode(opts map[string]string) (options, error) {
	o, err := catalog.DecodeOptions[options](opts)
	if err != nil {
		return o, err
	}
	invalid := func(key, val, cause string) (options, error) {
		return o, errdefs.Errorf(errdefs.ErrInvalid, "option %q: %q %s", key, val, cause)
	}
	for key, path := range map[string]*string{"mountpoint": &o.Mountpoint, "from": &o.From} {
		if _, given := opts[key]; !given {
			continue
		}
		if !filepath.IsAbs(*path) {
			return invalid(key, *path, "is not an absolute path")
		}
		*path = filepath.Clean(*path)
	}
	if o.Size != nil && *o.Size < minSize {
		return invalid("size", opts["size"], "is less than "+catalog.Bytes(minSize).String())
	}
	switch m := o.Mountpoint; {
	case m == "":
	case o.Size != nil:
		return invalid("size", opts["size"], `cannot be kept by a "mountpoint" outside the pool`)
	case o.From != "":
		return invalid("from", o.From, `cannot be copied to a "mountpoint" that exists elsewhere`)
	case m == "/":
		return invalid("mountpoint", m, "is the root of the host")
	case below(resolve(m), resolve(d.Path)), below(resolve(d.Path), resolve(m)):
		return invalid("mountpoint", m, "and the pool at "+d.Path+" lie in one another")
	}
	return o, nil
}

// below tells whether path is dir or lies below it. Both are free of symbolic links.
func below(path, dir string) bool {
	return path == dir || strings.HasPrefix(path, strings.TrimSuffix(dir, "/")+"/")
}
