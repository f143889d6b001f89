// Command plugin makes Remora's bundles for managed plugins, of volumes and of networks: config.json and rootfs, as the
// directory that "docker plugin create" takes and as the tar that is sent to an engine.
//
//	go run ./packaging/plugin -remora bin/remora -o dist/plugin
//
// The rootfs has the program and what its drivers call, from the packages of this machine's
// Debian or Ubuntu, which the package manager fetches and verifies. Of each package only the
// programs that are called are taken, with the libraries that they load. The same program and
// the same packages make the same bytes.
package main

import (
	"bytes"
	"context"
	"debug/elf"
	"encoding/json"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/moby/moby/api/types/plugin"

	"github.com/remora-plugins/remora/drivers/all"
)

func main() {
	if err := build(context.Background(), os.Args[1:], os.Stdout); err != nil {
		fmt.Fprintln(os.Stderr, "plugin:", err)
		os.Exit(1)
	}
}

func build(ctx context.Context, args []string, out io.Writer) error {
	flags := flag.NewFlagSet("plugin", flag.ContinueOnError)
	program := flags.String("remora", "bin/remora", "the static program")
	dir := flags.String("o", "dist/plugin", "directory to write for volumes; that for networks, and tars, are beside it")
	cache := flags.String("cache", "", "directory for packages (remora-tools/plugin in the user's cache)")
	add := flags.String("add", "", "further Debian packages that are taken whole, such as \"rclone s3fs\"")
	if err := flags.Parse(args); err != nil {
		return err
	}
	remora, err := readProgram(*program)
	if err != nil {
		return err
	}
	if *cache == "" {
		user, err := os.UserCacheDir()
		if err != nil {
			return err
		}
		*cache = filepath.Join(user, "remora-tools", "plugin")
	}
	more := strings.Fields(*add)
	pkgs := more
	for _, p := range programs() {
		pkgs = append(pkgs, p.pkg)
	}
	archives, err := download(ctx, *cache, pkgs)
	if err != nil {
		return err
	}
	from, err := read(ctx, archives)
	if err != nil {
		return err
	}
	r, err := assemble(from, remora, more)
	if err != nil {
		return err
	}
	if err := r.write(*dir, pluginConfig(all.Volumes()), out); err != nil {
		return err
	}
	if r, err = assembleNetwork(from, remora); err != nil {
		return err
	}
	return r.write(*dir+"-network", networkConfig(), out)
}

// write writes a bundle in both forms, and says what is in it.
func (r *rootfs) write(dir string, c plugin.Config, out io.Writer) error {
	config, err := json.MarshalIndent(c, "", "  ")
	if err != nil {
		return err
	}
	config = append(config, '\n')
	if err := r.writeDir(dir, config); err != nil {
		return err
	}
	digest, err := r.writeTar(dir+".tar", config)
	if err != nil {
		return err
	}
	for _, d := range r.packages() {
		fmt.Fprintf(out, "%-20s %s\n", d.name, d.version)
	}
	size, files := r.size()
	_, err = fmt.Fprintf(out, "%s: %d files, %d MiB, of %d packages; %s.tar is %s\n", dir, files, size>>20, len(r.packages()), dir, digest)
	return err
}

// readProgram reads the program, which must not need a library of the machine it was built on.
func readProgram(name string) ([]byte, error) {
	b, err := os.ReadFile(name)
	if err != nil {
		return nil, fmt.Errorf("%w (make build)", err)
	}
	e, err := elf.NewFile(bytes.NewReader(b))
	if err != nil {
		return nil, fmt.Errorf("%s: %w", name, err)
	}
	for _, p := range e.Progs {
		if p.Type == elf.PT_INTERP {
			return nil, fmt.Errorf("%s: is not static; build it with CGO_ENABLED=0", name)
		}
	}
	return b, nil
}
