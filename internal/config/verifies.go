package config

import (
	"fmt"
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/internal/schedule"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// verifiesEnv names verifications that are made by the environment alone.
const verifiesEnv = "REMORA_VERIFIES"

// Verify says of which backups it is proved, and when, that they can be restored.
type Verify struct {
	Name string
	Cron schedule.Cron
	// Repository is empty where there is but one.
	Repository string
	// Pools and Volumes are names or patterns of those that the backups are of; empty is all.
	Pools, Volumes []string
	// Scratch is the pool, or the absolute path of the directory, into which is restored; empty
	// is the volume's own pool.
	Scratch string
	// Image, if it is not empty, is that of the container in which Command is run with what was
	// restored at Mountpoint.
	Image, Command, Mountpoint string
	Timeout                    time.Duration
	// Memory is what the container may use, in bytes.
	Memory int64
}

// Matches tells whether a volume's backups are meant.
func (v Verify) Matches(pool, name string) bool {
	if len(v.Pools)+len(v.Volumes) == 0 {
		return true
	}
	return schedule.Schedule{Pools: v.Pools, Volumes: v.Volumes}.Matches(pool, name)
}

// verifyKey is a key of a verification.
type verifyKey struct {
	Key
	setVerify func(v *Verify, text string) error
}

func verifyKeys() []verifyKey {
	text := func(at func(*Verify) *string) func(*Verify, string) error {
		return func(v *Verify, s string) error { *at(v) = s; return nil }
	}
	patterns := func(at func(*Verify) *[]string) func(*Verify, string) error {
		return func(v *Verify, s string) error {
			*at(v) = words(s)
			for _, word := range *at(v) {
				if err := schedule.CheckPattern(word); err != nil {
					return err
				}
			}
			return nil
		}
	}
	return []verifyKey{
		{
			Key{Name: "cron", Type: typeCron, Help: "when, as for schedules; empty is never by itself, for `remora backup verify --restore` alone"},
			func(v *Verify, s string) (err error) { v.Cron, err = schedule.Parse(s); return err },
		},
		{Key{Name: "repository", Type: typeText, Help: "in which the backups are; may be left out where there is but one"}, text(func(v *Verify) *string { return &v.Repository })},
		{
			Key{Name: "pools", Type: typeList, Help: "of the volumes of which pools, by names or patterns; empty is all"},
			patterns(func(v *Verify) *[]string { return &v.Pools }),
		},
		{
			Key{Name: "volumes", Type: typeList, Help: "of which of these volumes, by names or patterns; empty is all"},
			patterns(func(v *Verify) *[]string { return &v.Volumes }),
		},
		{
			Key{Name: "scratch", Type: typeText, Help: "the pool, or the absolute path of a directory that is there, into which is restored; empty is the volume's own pool"},
			func(v *Verify, s string) error {
				if v.Scratch = s; strings.HasPrefix(s, "/") {
					v.Scratch = filepath.Clean(s)
					return nil
				}
				return checkName("pool", s)
			},
		},
		{Key{Name: "image", Type: typeText, Help: "image of the container in which the check is run; it has to be there already. Empty is no check beside the comparison"}, text(func(v *Verify) *string { return &v.Image })},
		{Key{Name: "command", Type: typeText, Help: "what `/bin/sh -c` runs in it, 0 being good; empty is what the image runs"}, text(func(v *Verify) *string { return &v.Command })},
		{
			Key{Name: "mountpoint", Type: typePath, Default: "/data", Help: "where in the container the volume is"},
			func(v *Verify, s string) error {
				if v.Mountpoint = filepath.Clean(s); !filepath.IsAbs(s) || v.Mountpoint == "/" || strings.Contains(s, ":") {
					return errdefs.Errorf(errdefs.ErrInvalid, "%q is not an absolute path below /", s)
				}
				return nil
			},
		},
		{
			Key{Name: "timeout", Type: typeDuration, Default: "10m", Help: "how long the command may take"},
			func(v *Verify, s string) (err error) { v.Timeout, err = parseDuration(s, time.Second); return err },
		},
		{
			Key{Name: "memory", Type: "size", Default: "512m", Help: "how much memory the container may use"},
			func(v *Verify, s string) error {
				n, err := catalog.ParseBytes(s)
				if err != nil {
					return errdefs.Errorf(errdefs.ErrInvalid, "%q is not a size such as 512m", s)
				}
				if n < 6<<20 {
					err = errdefs.Errorf(errdefs.ErrInvalid, "%q is less than the 6m that an engine takes for the least", s)
				}
				v.Memory = int64(n)
				return err
			},
		},
	}
}

// VerifyKeys returns the keys of a verification.
func VerifyKeys() []Key {
	var keys []Key
	for _, k := range verifyKeys() {
		keys = append(keys, k.Key)
	}
	return keys
}

// NewVerify returns a verification of everything, without a check.
func NewVerify() Verify {
	var v Verify
	for _, k := range verifyKeys() {
		if k.Default != "" {
			_ = k.setVerify(&v, k.Default) // a test holds the defaults to their checks
		}
	}
	return v
}

// verifies reads the tables of the verifications.
func (b *builder) verifies(raw any) error {
	tables, err := b.tables("verify", "[verify.weekly]", verifiesEnv, raw)
	if err != nil {
		return err
	}
	for _, name := range slices.Sorted(maps.Keys(tables)) {
		at := b.whereTable("verify."+name, verifiesEnv)
		if err := checkName("verify", name); err != nil {
			return fmt.Errorf("%s: %w", at, err)
		}
		v, err := b.verify(name, tables[name])
		if err == nil {
			err = b.checkVerify(v)
			if err != nil {
				err = fmt.Errorf("%s: verify %q: %w", at, name, err)
			}
		}
		if err != nil {
			return err
		}
		b.config.Verifies = append(b.config.Verifies, v)
	}
	return b.unknownFlags("verify")
}

// checkVerify says what does not go together.
func (b *builder) checkVerify(v Verify) error {
	repositories, pools := b.repositoryNames(), b.poolNames()
	invalid := func(format string, args ...any) error { return errdefs.Errorf(errdefs.ErrInvalid, format, args...) }
	switch {
	case len(repositories) == 0:
		return invalid("there is no repository: add a table [repository.NAME]")
	case v.Repository != "" && !slices.Contains(repositories, v.Repository):
		return invalid("there is no repository %q%s", v.Repository, near(v.Repository, repositories))
	case v.Repository == "" && len(repositories) != 1:
		return invalid(`key "repository" is missing (there are: %s)`, strings.Join(slices.Sorted(slices.Values(repositories)), ", "))
	case v.Scratch != "" && v.Scratch[0] != '/' && !slices.Contains(pools, v.Scratch):
		return invalid("there is no pool %q%s", v.Scratch, near(v.Scratch, pools))
	case v.Command != "" && v.Image == "":
		return invalid(`key "image" is missing: in which the command is to run`)
	}
	return nil
}

// verify reads one verification.
func (b *builder) verify(name string, table map[string]any) (Verify, error) {
	prefix := "verify." + name + "."
	file := map[string]any{}
	for key, v := range table {
		file[prefix+key] = v
	}
	v := NewVerify()
	v.Name = name
	var known []string
	for _, k := range verifyKeys() {
		known = append(known, k.Name)
		full := Key{Name: prefix + k.Name, Env: envName(prefix + k.Name), Type: k.Type}
		if k.Type == typeList && file[full.Name] != nil {
			file[full.Name] = joinList(file[full.Name])
		}
		given, err := b.resolve(full, file)
		if err == nil && given.Source != "default" {
			err = k.setVerify(&v, given.Value)
			b.config.values = append(b.config.values, given)
		}
		if err != nil {
			return v, b.wrong(given.Key, given.Source, err)
		}
		delete(file, full.Name)
	}
	for _, full := range b.inOrder(file) {
		key := strings.TrimPrefix(full, prefix)
		return v, errdefs.Errorf(errdefs.ErrInvalid, "%s: verify %q: unknown key %q%s", b.where(full), name, key, near(key, known))
	}
	return v, nil
}
