package adopt

import (
	"errors"
	"os"
	"strings"
	"testing"

	"github.com/remora-plugins/remora/sdk/errdefs"
)

func TestDockerLocal(t *testing.T) {
	dir := t.TempDir()
	hash := strings.Repeat("0f", 32)
	mkdir(t, dir+"/plain/_data", dir+"/empty", dir+"/"+hash+"/_data", dir+"/torn/_data", dir+"/none/_data")
	write(t, dir+"/metadata.db", "")
	write(t, dir+"/torn/opts.json", "{")
	write(t, dir+"/none/opts.json", `{"MountType":"","MountOpts":"","MountDevice":"","Quota":{"Size":0}}`)
	for _, with := range []string{"nfs", "cifs", "bind", "size"} {
		mkdir(t, dir+"/"+with+"/_data")
		write(t, dir+"/"+with+"/opts.json", string(read(t, "testdata/docker/"+with+".json")))
	}
	all, err := DockerLocal(dir, nil)
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(dir, all), []string{
		`bind /t/bind/_data unsupported: it is a bind mount of the directory "/srv/site"`,
		`cifs /t/cifs/_data unsupported: its data lies elsewhere: it is a mount of type "cifs"`,
		"empty /t/empty/_data not-found: /t/empty/_data: no such file or directory",
		`nfs /t/nfs/_data unsupported: its data lies elsewhere: it is a mount of type "nfs"`,
		"none /t/none/_data",
		"plain /t/plain/_data",
		"size /t/size/_data unsupported: it has a limit of 1073741824 bytes, which would be lost",
		"torn /t/torn/_data invalid: /t/torn/opts.json: unexpected end of JSON input",
	})
	for _, v := range all {
		if errors.Is(v.Err, errdefs.ErrUnsupported) && len(errdefs.Hints(v.Err)) == 0 {
			t.Errorf("%s: refused without a hint", v.Name)
		}
	}

	all, err = DockerLocal(dir, []string{hash, "nosuch", "../torn", hash})
	if err != nil {
		t.Fatal(err)
	}
	same(t, told(dir, all), []string{
		hash + " /t/" + hash + "/_data",
		"nosuch /t/nosuch/_data not-found: /t/nosuch/_data: no such file or directory",
		`../torn  invalid: volume name "../torn": want letters, digits, "_", "." or "-", the first a letter or digit`,
	})

	if err := os.RemoveAll(dir); err != nil {
		t.Fatal(err)
	}
	if _, err := DockerLocal(dir, nil); !errors.Is(err, errdefs.ErrNotFound) {
		t.Errorf("of no root: %v", err)
	}
}

func TestPasswordIsNotShown(t *testing.T) {
	o, err := parseDocker(read(t, "testdata/docker/cifs.json"))
	if err != nil || !strings.Contains(o.MountOpts, "hunter2") {
		t.Fatalf("options %+v, %v", o, err)
	}
	err = o.refuse()
	if text := err.Error() + strings.Join(errdefs.Hints(err), " "); strings.Contains(text, "hunter2") {
		t.Errorf("the error shows it: %s", text)
	}
}

func FuzzDocker(f *testing.F) {
	for _, name := range []string{"nfs", "cifs", "bind", "size"} {
		f.Add(read(f, "testdata/docker/"+name+".json"))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		o, err := parseDocker(data)
		if err != nil {
			return
		}
		if bare := o == (dockerOptions{}); bare != (o.refuse() == nil) {
			t.Errorf("%+v: refused %v", o, o.refuse())
		}
	})
}
