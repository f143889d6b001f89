package main

import (
	"bytes"
	"debug/elf"
	"errors"
	"fmt"
	"maps"
	"path"
	"slices"
	"strings"
)

// rootfs is the file system of the plugin that is being put together, by paths without the
// first slash.
type rootfs struct {
	from  map[string]*file // what the packages have
	files map[string]*file
}

// assemble takes what is wanted of the packages, and the program itself.
func assemble(from map[string]*file, remora []byte, more []string) (*rootfs, error) {
	return assembleOf(programs(), from, remora, more)
}

// assembleNetwork takes what the plugin of networks wants, which calls no program but to mount.
func assembleNetwork(from map[string]*file, remora []byte) (*rootfs, error) {
	few := slices.DeleteFunc(programs(), func(p program) bool {
		return !slices.Contains([]string{"busybox-static", "mount", "netbase", "tzdata", "libgcc-s1"}, p.pkg)
	})
	return assembleOf(few, from, remora, nil)
}

func assembleOf(programs []program, from map[string]*file, remora []byte, more []string) (*rootfs, error) {
	r := &rootfs{from: from, files: map[string]*file{}}
	r.files["usr/bin/remora"] = &file{mode: 0o755, data: remora}
	for name, to := range links {
		r.files[name] = &file{mode: 0o777, link: to}
	}
	for name, text := range texts {
		r.files[name] = &file{mode: 0o644, data: []byte(text)}
	}
	for applet := range strings.FieldsSeq(applets) {
		r.files["usr/bin/"+applet] = &file{mode: 0o777, link: "busybox"}
	}
	for _, p := range programs {
		if err := r.takePatterns(p); err != nil {
			return nil, err
		}
	}
	for _, pkg := range more {
		if err := r.takeAll(pkg); err != nil {
			return nil, err
		}
	}
	r.certificates()
	r.papers()
	return r, nil
}

// takePatterns takes the files of a program. A package that has none of them was renamed or
// has become another.
func (r *rootfs) takePatterns(p program) error {
	found := 0
	for _, pattern := range p.files {
		for name, f := range r.from {
			ok, err := path.Match(merged(pattern), name)
			if err != nil {
				return fmt.Errorf("package %s: %w", p.pkg, err)
			}
			if ok && f.of.name == p.pkg {
				found++
				if err := r.take(name); err != nil {
					return fmt.Errorf("package %s: %w", p.pkg, err)
				}
			}
		}
	}
	if found == 0 {
		return fmt.Errorf("package %s: has nothing of %s", p.pkg, strings.Join(p.files, ", "))
	}
	return nil
}

// takeAll takes a whole package, but for its documentation.
func (r *rootfs) takeAll(pkg string) error {
	found := false
	for name, f := range r.from {
		if f.of.name != pkg || strings.HasPrefix(name, "usr/share/doc/") {
			continue
		}
		found = true
		if err := r.take(name); err != nil {
			return fmt.Errorf("package %s: %w", pkg, err)
		}
	}
	if !found {
		return fmt.Errorf("package %s: has no files", pkg)
	}
	return nil
}

// take takes a file, what it is a link to, and the libraries that it loads.
func (r *rootfs) take(name string) error {
	f := r.from[name]
	if f == nil {
		return fmt.Errorf("%s: not in any package", name)
	}
	if r.files[name] == f {
		return nil
	}
	r.files[name] = f
	if f.link != "" {
		to := f.link
		if !path.IsAbs(to) {
			to = path.Join(path.Dir(name), to)
		}
		return r.take(merged(strings.TrimPrefix(path.Clean(to), "/")))
	}
	if !bytes.HasPrefix(f.data, []byte(elf.ELFMAG)) {
		return nil
	}
	need, err := libraries(f.data)
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	for _, lib := range need {
		at, err := r.find(lib, path.Dir(name))
		if err == nil {
			err = r.take(at)
		}
		if err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	return nil
}

// libraries returns the names of what a program or a library has loaded with it, and the
// path of the loader itself.
func libraries(data []byte) ([]string, error) {
	e, err := elf.NewFile(bytes.NewReader(data))
	if err != nil {
		return nil, err
	}
	need, err := e.ImportedLibraries()
	if err != nil {
		return nil, nil //nolint:nilerr // a static program has no such section
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			b := make([]byte, p.Filesz)
			if _, err := p.ReadAt(b, 0); err != nil {
				return nil, err
			}
			need = append(need, string(bytes.TrimRight(b, "\x00")))
		}
	}
	return need, nil
}

// find looks where the loader of Debian does, and beside the file that wants the library.
func (r *rootfs) find(lib, beside string) (string, error) {
	if path.IsAbs(lib) {
		return merged(lib[1:]), nil
	}
	var found []string
	for name := range r.from {
		if path.Base(name) != lib {
			continue
		}
		dir := path.Dir(name)
		if ok, _ := path.Match("usr/lib/*-linux-gnu*", dir); ok || dir == "usr/lib" || dir == beside || strings.HasPrefix(dir, "usr/lib/") {
			found = append(found, name)
		}
	}
	if len(found) == 0 {
		return "", errors.New("library " + lib + ": in no package")
	}
	return slices.MinFunc(found, func(a, b string) int {
		return strings.Count(a, "/")*1000 + len(a) - strings.Count(b, "/")*1000 - len(b)
	}), nil
}

// certificates puts those of the certificate authorities into the one file that programs read.
func (r *rootfs) certificates() {
	var all bytes.Buffer
	for _, name := range slices.Sorted(maps.Keys(r.files)) {
		if strings.HasPrefix(name, "usr/share/ca-certificates/") {
			all.Write(bytes.TrimSpace(r.files[name].data))
			all.WriteByte('\n')
			delete(r.files, name)
		}
	}
	if all.Len() > 0 {
		r.files["etc/ssl/certs/ca-certificates.crt"] = &file{mode: 0o644, data: all.Bytes()}
	}
}

// papers takes the licence of each package of which something was taken, and writes the list
// of these packages.
func (r *rootfs) papers() {
	var list bytes.Buffer
	for _, d := range r.packages() {
		fmt.Fprintf(&list, "%s %s sha256:%s\n", d.name, d.version, d.digest)
		licence := "usr/share/doc/" + d.name + "/copyright"
		if f := r.from[licence]; f != nil && f.link == "" {
			r.files[licence] = f
		}
	}
	r.files["usr/share/remora/packages"] = &file{mode: 0o644, data: list.Bytes()}
}

// packages returns the packages of which something was taken.
func (r *rootfs) packages() []*deb {
	byName := map[string]*deb{}
	for _, f := range r.files {
		if f.of != nil {
			byName[f.of.name] = f.of
		}
	}
	if ca := r.from["usr/share/ca-certificates/mozilla/ISRG_Root_X1.crt"]; ca != nil {
		byName[ca.of.name] = ca.of
	}
	var all []*deb
	for _, name := range slices.Sorted(maps.Keys(byName)) {
		all = append(all, byName[name])
	}
	return all
}
