package adopt

import (
	"bufio"
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/mount"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// RexrayDirs are where REX-Ray mounts volumes, in newer versions and in older ones.
var RexrayDirs = []string{"/var/lib/rexray/volumes", "/var/lib/libstorage/volumes"}

// RexrayConfig is the configuration of REX-Ray.
const RexrayConfig = "/etc/rexray/config.yml"

// Rexray returns the volumes that REX-Ray has, or had, mounted in a directory, sorted by name.
// Their data is in a directory "data" of the disk. A volume whose disk is not mounted there now
// is an error of that volume.
func Rexray(dir string) ([]Volume, error) {
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, classify(dir, err)
	}
	real, err := filepath.EvalSymlinks(dir)
	if err != nil {
		return nil, classify(dir, err)
	}
	var all []Volume
	for _, e := range entries {
		if !e.IsDir() {
			continue
		}
		v := Volume{Name: e.Name(), Path: filepath.Join(dir, e.Name())}
		mounted, err := mount.At(filepath.Join(real, e.Name()))
		switch {
		case err != nil:
			v.Err = errdefs.As(errdefs.ErrUnavailable, err)
		case !mounted:
			v.Err = errdefs.Hint(errdefs.Errorf(errdefs.ErrUnavailable, "no disk is mounted at %s", v.Path),
				"attach the disk to this host and mount it there, with a line in /etc/fstab, then adopt again")
		default:
			v = found(v.Name, filepath.Join(v.Path, "data"))
			if errors.Is(v.Err, errdefs.ErrNotFound) { // linux.volume.rootpath was set to another, or to none
				v = found(v.Name, filepath.Join(dir, e.Name()))
			}
		}
		all = append(all, v)
	}
	return all, nil
}

// rexrayDrivers says what takes the place of a storage driver of REX-Ray.
var rexrayDrivers = map[string]string{
	"efs":         "[pool.efs]\ndriver = \"mount\"\ntype = \"nfs4\"\ndevice = \"FILESYSTEM.efs.REGION.amazonaws.com:/\"",
	"isilon":      "[pool.isilon]\ndriver = \"mount\"\ntype = \"nfs\"\ndevice = \"NFSHOST:/ifs/volumes/VOLUMEPATH\"",
	"csi-nfs":     "[pool.nfs]\ndriver = \"mount\"\ntype = \"nfs\"\ndevice = \"HOST:/EXPORT\"",
	"s3fs":        "[pool.s3fs]\ndriver = \"mount\"\ntype = \"s3fs\"\nusername = \"ACCESSKEY\"\npassword_file = \"/etc/remora/s3.secret\"   # each volume: -o device=BUCKET",
	"vfs":         "[pool.vfs]\ndriver = \"dir\"\npath = \"/srv/vfs\"",
	"ebs":         "",
	"ec2":         "",
	"aws":         "",
	"gcepd":       "[pool.rexray]\ndriver = \"gcepd\"\nkeyfile = \"KEYFILE\"   # without it the account of the instance; then: remora volume import",
	"gce":         "[pool.rexray]\ndriver = \"gcepd\"\nkeyfile = \"KEYFILE\"   # without it the account of the instance; then: remora volume import",
	"dobs":        "",
	"cinder":      "",
	"rbd":         "",
	"azureud":     "",
	"scaleio":     "",
	"virtualbox":  "",
	"fittedcloud": "",
}

// RexrayPools reads the configuration of REX-Ray and returns for each storage driver it names
// the lines of Remora's, or "" where there is no driver for it yet. A file that is not there has
// none.
func RexrayPools(file string) (map[string]string, error) {
	data, err := readFile(file)
	if err != nil {
		if errors.Is(err, errdefs.ErrNotFound) {
			return nil, nil
		}
		return nil, err
	}
	pools := map[string]string{}
	for _, name := range rexrayNames(data) {
		pools[name] = rexrayDrivers[name]
	}
	return pools, nil
}

// rexrayNames finds the storage drivers in a configuration: they are the values of "service"
// and "driver", and the names of the sections in which their own keys are.
func rexrayNames(data []byte) []string {
	var names []string
	lines := bufio.NewScanner(bytes.NewReader(data))
	for lines.Scan() {
		text, _, _ := strings.Cut(lines.Text(), "#")
		key, value, is := strings.Cut(strings.TrimLeft(text, " -\t"), ":")
		if !is {
			continue
		}
		key, value = strings.TrimSpace(key), strings.Trim(strings.TrimSpace(value), `"'`)
		if key != "service" && key != "driver" {
			value = key
		}
		if _, known := rexrayDrivers[value]; known && !slices.Contains(names, value) {
			names = append(names, value)
		}
	}
	slices.Sort(names)
	return names
}
