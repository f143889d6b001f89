package mount

import (
	"maps"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// job is all that has a say in what a program is told to mount.
type job struct {
	f        facts             // with the pool's credentials, if they are meant
	opts     map[string]string // of defaults, pool and volume; files by their absolute paths
	password string            // as the program wants it
	dir      string            // where files for the program will be
	cache    string
	target   string
}

func (j job) file(name string) string { return filepath.Join(j.dir, name) }

// plan is what will be done. Secrets are in files alone: arguments can be read by every user
// of the machine, and options are in the kernel's table of mounts.
type plan struct {
	before []remote.Command // where cmd itself would not tell the truth
	cmd    remote.Command
	files  map[string]string // in the job's directory, readable by root alone
}

// mountLimit bounds a program, with room for a second try below the engine's two minutes.
const mountLimit = 35 * time.Second

// joined writes options as mount(8) takes them.
func joined(opts map[string]string) string {
	var list []string
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		switch val := opts[key]; val {
		case "false":
		case "":
			list = append(list, key)
		default:
			list = append(list, key+"="+val)
		}
	}
	return strings.Join(list, ",")
}

// byMount is for what mount(8) or its helper does without more.
func byMount(j job) (plan, error) {
	args := []string{"-t", j.f.Type}
	if text := joined(j.opts); text != "" {
		args = append(args, "-o", text)
	}
	return plan{cmd: remote.Command{Name: "mount", Args: append(args, "--", j.f.Device, j.target), Limit: mountLimit}}, nil
}

// with builds by mount(8), with more options and files.
func with(j job, more, files map[string]string) (plan, error) {
	j.opts = merge(j.opts, more)
	p, err := byMount(j)
	p.files = files
	return p, err
}

func verifyCifs(f facts) error {
	_, file := f.Options["credentials"]
	_, cred := f.Options["cred"]
	_, guest := f.Options["guest"]
	named := f.Username != "" || f.HasPassword || f.PasswordFile != "" || f.PasswordEnv != ""
	switch {
	case (file || cred) && named:
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"credentials\": user and password are in that file")
	case f.Username == "" && !file && !cred && !guest && !strings.HasPrefix(f.Options["sec"], "krb5"):
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"username\" is missing, or \"guest\"")
	}
	return nil
}

// buildCifs hands user, password and domain on in a file (mount.cifs(8), credentials=).
func buildCifs(j job) (plan, error) {
	if j.f.Username == "" {
		return byMount(j)
	}
	text := "username=" + j.f.Username + "\n"
	if j.password != "" {
		text += "password=" + j.password + "\n"
	}
	var textSb92 strings.Builder
	for _, key := range []string{"domain", "dom", "workgroup"} {
		if domain, ok := j.opts[key]; ok {
			textSb92.WriteString("domain=" + domain + "\n")
			j.opts = maps.Clone(j.opts)
			delete(j.opts, key)
		}
	}
	text += textSb92.String()
	return with(j, map[string]string{"credentials": j.file("credentials")}, map[string]string{"credentials": text})
}

func buildCeph(j job) (plan, error) {
	more, files := map[string]string{}, map[string]string{}
	if j.f.Username != "" {
		more["name"] = j.f.Username
	}
	if j.password != "" {
		more["secretfile"], files["secret"] = j.file("secret"), j.password+"\n"
	}
	return with(j, more, files)
}

func verifyCephFuse(f facts) error {
	if strings.Contains(f.Device, "=") {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"device\": %q is not monitor,monitor:/path, which is what ceph-fuse takes", f.Device)
	}
	return nil
}

// buildCephFuse calls ceph-fuse(8), which takes options of Ceph's by their own names.
func buildCephFuse(j job) (plan, error) {
	monitors, path, _ := strings.Cut(j.f.Device, ":/")
	user := j.f.Username
	if user == "" {
		user = "admin"
	}
	p := plan{files: map[string]string{}}
	args := []string{"-n", "client." + user, "-m", monitors, "-r", "/" + path}
	if j.password != "" {
		p.files["keyring"] = "[client." + user + "]\n\tkey = " + j.password + "\n"
		args = append(args, "-k", j.file("keyring"))
	}
	fuse := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(j.opts)) {
		switch {
		case isGeneral(key):
			fuse[key] = j.opts[key]
		case key == "conf":
			args = append(args, "-c", j.opts[key])
		default:
			args = append(args, "--"+key+"="+j.opts[key])
		}
	}
	if text := joined(fuse); text != "" {
		args = append(args, "-o", text)
	}
	p.cmd = remote.Command{Name: "ceph-fuse", Args: append(args, j.target), Limit: mountLimit}
	return p, nil
}

// buildDavfs writes a file of options, in which a file of passwords is named
// (davfs2.conf(5)).
func buildDavfs(j job) (plan, error) {
	opts := map[string]string{"conf": j.file("davfs2.conf")}
	var text strings.Builder
	text.WriteString("ask_auth 0\nsecrets " + quoteDavfs(j.file("secrets")) + "\n")
	for _, key := range slices.Sorted(maps.Keys(j.opts)) {
		_, inFile := davConf[key]
		switch {
		case inFile:
			text.WriteString(key + " " + j.opts[key] + "\n")
		case davOptions[key] == file && strings.HasPrefix(key, "trust_"):
			text.WriteString(key + " " + quoteDavfs(j.opts[key]) + "\n")
		default:
			opts[key] = j.opts[key]
		}
	}
	secrets := ""
	if j.f.Username != "" || j.password != "" {
		secrets = quoteDavfs(j.f.Device) + " " + quoteDavfs(j.f.Username) + " " + quoteDavfs(j.password) + "\n"
	}
	j.opts = opts
	return with(j, nil, map[string]string{"davfs2.conf": text.String(), "secrets": secrets})
}

func quoteDavfs(s string) string {
	return `"` + strings.NewReplacer(`\`, `\\`, `"`, `\"`).Replace(s) + `"`
}

func verifyS3fs(f facts) error {
	_, role := f.Options["iam_role"]
	_, profile := f.Options["profile"]
	_, public := f.Options["public_bucket"]
	password := f.HasPassword || f.PasswordFile != "" || f.PasswordEnv != ""
	switch {
	case role || profile || public:
	case f.Username == "":
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"username\" is missing: the access key, or public_bucket=1")
	case !password:
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"password_file\" is missing: the secret key")
	}
	if u := f.Options["url"]; u != "" {
		if _, err := parseURL(u); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"url\": %w", err)
		}
	}
	return nil
}

func buildS3fs(j job) (plan, error) {
	p := plan{files: map[string]string{}}
	opts := maps.Clone(j.opts)
	if j.password != "" {
		opts["passwd_file"], p.files["passwd"] = j.file("passwd"), j.f.Username+":"+j.password+"\n"
	}
	p.cmd = remote.Command{Name: "s3fs", Args: []string{j.f.Device, j.target, "-o", joined(opts)}, Limit: mountLimit}
	return p, nil
}
