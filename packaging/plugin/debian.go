package main

import (
	"archive/tar"
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/run"
)

// deb is one package.
type deb struct {
	name, version, digest string
}

// file is a file or a symbolic link of a package.
type file struct {
	mode int64
	link string // what a symbolic link says
	data []byte
	of   *deb // nil for what is ours
}

// download has the package manager fetch the packages with all that they need, none of which
// is installed, into dir, and returns the paths of the archives.
func download(ctx context.Context, dir string, pkgs []string) ([]string, error) {
	if err := os.MkdirAll(filepath.Join(dir, "partial"), 0o755); err != nil {
		return nil, err
	}
	status := filepath.Join(dir, "status") // of a machine on which there is nothing
	if err := os.WriteFile(status, nil, 0o644); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	options := []string{
		"-q", "-y", "-o", "Dir::State::Status=" + filepath.Join(dir, "status"), "-o", "Dir::Cache::Archives=" + dir,
		"-o", "Dir::Cache::pkgcache=", "-o", "Dir::Cache::srcpkgcache=",
		"-o", "Debug::NoLocking=true", "-o", "APT::Sandbox::User=root", "--no-install-recommends",
	}
	install := append(append(slices.Clone(options), "--download-only", "install"), pkgs...)
	if _, err := run.Output(ctx, nil, "apt-get", install...); err != nil {
		return nil, fmt.Errorf("%w (after apt-get update?)", err)
	}
	// Which of the archives there are belong to this list: others may be of an older version.
	list, err := run.Output(ctx, nil, "apt-get", append(append(slices.Clone(options), "--simulate", "install"), pkgs...)...)
	if err != nil {
		return nil, err
	}
	return archives(dir, string(list))
}

// archives finds what a simulation would install.
func archives(dir, list string) ([]string, error) {
	var all []string
	for line := range strings.Lines(list) {
		// Inst sshfs (3.7.3-1.1 Debian:12.11/stable [amd64])
		f := strings.Fields(line)
		if len(f) < 3 || f[0] != "Inst" {
			continue
		}
		version := strings.ReplaceAll(strings.TrimPrefix(f[2], "("), ":", "%3a")
		found, err := filepath.Glob(filepath.Join(dir, f[1]+"_"+version+"_*.deb"))
		if err != nil || len(found) != 1 {
			return nil, fmt.Errorf("%d archives of %s %s: %w", len(found), f[1], version, cmpErr(err))
		}
		all = append(all, found[0])
	}
	if len(all) == 0 {
		return nil, errors.New("apt-get names no package")
	}
	slices.Sort(all)
	return all, nil
}

func cmpErr(err error) error {
	if err == nil {
		return errors.New("want one")
	}
	return err
}

// unwanted are the parts of a package of which nothing is taken, and which may be large.
var unwanted = []string{"usr/share/locale/", "usr/share/man/", "usr/share/info/", "usr/share/perl", "usr/lib/python", "usr/share/icu/"}

// read reads packages into one tree, by the paths of a file system without a /bin of its own.
func read(ctx context.Context, archives []string) (map[string]*file, error) {
	tree := map[string]*file{}
	for _, archive := range archives {
		d, err := describe(archive)
		if err != nil {
			return nil, err
		}
		if err := readOne(ctx, archive, d, tree); err != nil {
			return nil, fmt.Errorf("%s: %w", archive, err)
		}
	}
	return tree, nil
}

func describe(archive string) (*deb, error) {
	parts := strings.SplitN(filepath.Base(archive), "_", 3)
	f, err := os.Open(archive)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	sum := sha256.New()
	if _, err := io.Copy(sum, f); err != nil {
		return nil, err
	}
	return &deb{parts[0], strings.ReplaceAll(parts[1], "%3a", ":"), hex.EncodeToString(sum.Sum(nil))}, nil
}

func readOne(ctx context.Context, archive string, d *deb, tree map[string]*file) error {
	cmd := exec.CommandContext(ctx, "dpkg-deb", "--fsys-tarfile", archive)
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	err = readTar(out, d, tree)
	_, _ = io.Copy(io.Discard, out) // the end of the archive, which dpkg-deb wants to write
	if wErr := cmd.Wait(); wErr != nil && err == nil {
		err = fmt.Errorf("%w: %s", wErr, stderr.String())
	}
	return err
}

func readTar(r io.Reader, d *deb, tree map[string]*file) error {
	t := tar.NewReader(r)
	for {
		h, err := t.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		name := merged(path.Clean("/" + h.Name)[1:])
		if slices.ContainsFunc(unwanted, func(p string) bool { return strings.HasPrefix(name, p) }) {
			continue
		}
		// Whoever runs them is root: no bit is needed that makes them so.
		f := &file{mode: h.Mode & 0o777, of: d}
		switch h.Typeflag {
		case tar.TypeReg:
			if f.data, err = io.ReadAll(t); err != nil {
				return err
			}
		case tar.TypeLink:
			at := tree[merged(path.Clean("/" + h.Linkname)[1:])]
			if at == nil {
				return fmt.Errorf("%s: link to %s, which is not there", h.Name, h.Linkname)
			}
			f.data = at.data
		case tar.TypeSymlink:
			f.link = h.Linkname
			f.mode = 0o777
		default:
			continue
		}
		tree[name] = f
	}
}

// merged returns where a path is that begins with a directory which is a link now.
func merged(name string) string {
	for _, dir := range []string{"bin", "sbin", "lib", "lib64"} {
		if strings.HasPrefix(name, dir+"/") {
			return "usr/" + name
		}
	}
	return name
}
