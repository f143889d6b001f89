package mount

import (
	"context"
	"fmt"
	"maps"
	"net"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/remote"
	"github.com/remora-plugins/remora/internal/run"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// backend is a kind of server that rclone knows, as far as it can be named without a file
// of rclone's. Its options are those of rclone's flags, such as "webdav-url".
type backend struct {
	user, password string // the keys in rclone's file
	plain          bool   // the password is not obscured there
	port           string
	options        map[string]kind // by their keys in rclone's file
}

var backends = map[string]backend{
	"webdav": {user: "user", password: "pass", options: byName(map[kind]string{value: `url vendor encoding`})},
	"sftp": {user: "user", password: "pass", port: "22", options: byName(map[kind]string{
		value:  `host port use_insecure_cipher disable_hashcheck set_modtime path_override idle_timeout chunk_size concurrency ciphers macs key_exchange`,
		file:   `key_file pubkey_file known_hosts_file`,
		unsafe: `key_use_agent server_command subsystem md5sum_command sha1sum_command`,
	})},
	"ftp": {user: "user", password: "pass", port: "21", options: byName(map[kind]string{
		value: `host port tls explicit_tls no_check_certificate concurrency disable_epsv disable_mlsd idle_timeout encoding`,
	})},
	"smb": {user: "user", password: "pass", port: "445", options: byName(map[kind]string{
		value: `host port domain hide_special_share case_insensitive idle_timeout encoding`,
	})},
	"http": {options: byName(map[kind]string{value: `url no_slash no_head`})},
	"s3": {user: "access_key_id", password: "secret_access_key", plain: true, options: byName(map[kind]string{
		value: `provider region endpoint location_constraint acl bucket_acl storage_class server_side_encryption force_path_style
			v2_auth upload_cutoff chunk_size upload_concurrency list_chunk list_version no_check_bucket no_head disable_checksum`,
		unsafe: `env_auth profile shared_credentials_file`,
	})},
	"b2": {user: "account", password: "key", plain: true, options: byName(map[kind]string{
		value: `endpoint hard_delete versions upload_cutoff chunk_size download_url`,
	})},
}

func backendNames() []string { return slices.Sorted(maps.Keys(backends)) }

// rcloneOptions are flags of "rclone mount" and of the backends.
func rcloneOptions() map[string]kind {
	all := byName(map[kind]string{
		flag: `allow-other allow-root default-permissions read-only no-modtime no-checksum no-seek vfs-case-insensitive
			vfs-fast-fingerprint vfs-used-is-size write-back-cache async-read use-server-modtime no-check-certificate`,
		value: `vfs-cache-mode vfs-cache-max-size vfs-cache-max-age vfs-cache-poll-interval vfs-write-back vfs-write-wait
			vfs-read-wait vfs-read-ahead vfs-read-chunk-size vfs-read-chunk-size-limit dir-cache-time poll-interval attr-timeout
			max-read-ahead buffer-size transfers checkers timeout contimeout low-level-retries retries bwlimit tpslimit
			tpslimit-burst uid gid umask dir-perms file-perms user-agent`,
		unsafe: `cache-dir log-file ca-cert client-cert client-key config-dir fuse-flag option`,
	})
	for name, b := range backends {
		for key, k := range b.options {
			all[name+"-"+strings.ReplaceAll(key, "_", "-")] = k
		}
	}
	return all
}

// ofBackend returns the options of the backend by their keys in rclone's file, and the rest.
func ofBackend(name string, opts map[string]string) (own, rest map[string]string) {
	own, rest = map[string]string{}, map[string]string{}
	for key, val := range opts {
		k, ok := strings.CutPrefix(key, name+"-")
		k = strings.ReplaceAll(k, "-", "_")
		if _, known := backends[name].options[k]; ok && known {
			own[k] = val
		} else {
			rest[key] = val
		}
	}
	return own, rest
}

func verifyRclone(f facts) error {
	name := backendOf(f.Device)
	if name == "" {
		if f.Config == "" {
			return errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "option \"config\" is missing: rclone's file with the remote of %q", f.Device),
				"put the file into the pool's secrets and its name into \"config\", or name the server by options: device=:webdav:path and webdav-url")
		}
		if f.HasPassword || f.Username != "" || f.PasswordFile != "" || f.PasswordEnv != "" {
			return errdefs.Errorf(errdefs.ErrInvalid, "option \"config\": user and password are in that file")
		}
	} else if f.Config != "" {
		return errdefs.Errorf(errdefs.ErrInvalid, "option \"config\": the device %q names no remote of that file", f.Device)
	}
	own, rest := ofBackend(name, f.Options)
	for key := range rest {
		if isGeneral(key) && !slices.Contains([]string{"ro", "rw", "nosuid", "nodev"}, key) {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: rclone does not take it", key)
		}
		if first, _, ok := strings.Cut(key, "-"); ok {
			if _, other := backends[first]; other {
				return errdefs.Errorf(errdefs.ErrInvalid, "option %q is not for the device %q", key, f.Device)
			}
		}
	}
	for _, key := range map[string][]string{"webdav": {"url"}, "http": {"url"}, "sftp": {"host", "known_hosts_file"}, "ftp": {"host"}, "smb": {"host"}}[name] {
		if own[key] == "" {
			err := errdefs.Errorf(errdefs.ErrInvalid, "option %q is missing", name+"-"+strings.ReplaceAll(key, "_", "-"))
			if key == "known_hosts_file" {
				err = errdefs.Hint(err, "without it rclone would take any server for the right one; the driver sshfs is another way")
			}
			return err
		}
	}
	switch {
	case own["url"] != "":
		if _, err := parseURL(own["url"]); err != nil {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %w", name+"-url", err)
		}
	case own["host"] != "" && badHost(own["host"]):
		return errdefs.Errorf(errdefs.ErrInvalid, "option %q: not the name or address of a server", name+"-host")
	}
	return nil
}

// rcloneServers returns the address of the server, if the options name one.
func rcloneServers(device string, opts map[string]string) []string {
	name := backendOf(device)
	own, _ := ofBackend(name, opts)
	for _, u := range []string{own["url"], own["endpoint"]} {
		if servers, err := parseURL(u); err == nil {
			return servers
		}
	}
	if own["host"] == "" {
		return nil
	}
	port := own["port"]
	if port == "" {
		port = backends[name].port
	}
	return []string{net.JoinHostPort(own["host"], port)}
}

// buildRclone has rclone list the directory first, as it would mount what a server does not
// have, and make it, if it lies below the pool's device.
func buildRclone(j job) (plan, error) {
	p := plan{files: map[string]string{}}
	source, conf := j.f.Device, j.f.Config
	opts := j.opts
	if name := backendOf(j.f.Device); name != "" {
		b := backends[name]
		own, rest := ofBackend(name, opts)
		opts = rest
		if j.f.Username != "" {
			own[b.user] = j.f.Username
		}
		if j.password != "" {
			own[b.password] = j.password
		}
		text := "[remora]\ntype = " + name + "\n"
		var textSb165 strings.Builder
		for _, key := range slices.Sorted(maps.Keys(own)) {
			textSb165.WriteString(key + " = " + own[key] + "\n")
		}
		text += textSb165.String()
		conf, source = j.file("rclone.conf"), "remora:"+strings.TrimPrefix(j.f.Device, ":"+name+":")
		p.files["rclone.conf"] = text
	}
	common := []string{"--config", conf, "--ask-password=false"}
	mount := append([]string{"mount", "--daemon", "--daemon-wait", "30s", "--devname", j.f.Device}, common...)
	ask := slices.Clone(common)
	if opts["cache-dir"] == "" {
		mount = append(mount, "--cache-dir", j.cache)
	}
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		arg := "--" + key
		switch val := opts[key]; {
		case val == "false":
			continue
		case isGeneral(key):
			if key == "ro" {
				mount = append(mount, "--read-only")
			}
			continue // fusermount(1) mounts nosuid and nodev in any case
		case val != "":
			arg += "=" + val
		}
		mount = append(mount, arg)
		if slices.Contains([]string{"contimeout", "timeout", "low-level-retries", "ca-cert", "client-cert", "client-key", "no-check-certificate"}, key) {
			ask = append(ask, arg)
		}
	}
	if j.f.Base != "" {
		p.before = append(p.before, remote.Command{Name: "rclone", Args: append(append([]string{"mkdir", "--retries", "1"}, ask...), "--", source), Limit: mountLimit})
	}
	p.before = append(p.before, remote.Command{Name: "rclone", Args: append(append([]string{"lsf", "--max-depth", "1", "--retries", "1"}, ask...), "--", source), Limit: mountLimit})
	p.cmd = remote.Command{Name: "rclone", Args: append(mount, "--", source, j.target), Limit: mountLimit}
	return p, nil
}

func isGeneral(key string) bool { _, ok := general[key]; return ok }

// obscure writes a password as rclone wants it in its file, which hides it from a glance and
// from nobody else.
func obscure(ctx context.Context, f facts, password string) (string, error) {
	b, ok := backends[backendOf(f.Device)]
	if f.Type != "rclone" || password == "" || !ok || b.plain {
		return password, nil
	}
	out, err := run.Output(ctx, []byte(password), "rclone", "obscure", "-")
	if err != nil {
		return "", fmt.Errorf("password: %w", err)
	}
	return strings.TrimSpace(string(out)), nil
}
