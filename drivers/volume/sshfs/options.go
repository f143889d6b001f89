package sshfs

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// kind says what the value of an option of sshfs or ssh looks like.
type kind int

const (
	flag   kind = iota // stands alone
	value              // has a value
	unsafe             // has a value or not, and wants the pool's leave
)

// known are the options that sshfs 3.7 hands on or takes itself (sshfs.c: ssh_opts,
// sshfs_opts; libfuse and mount(8) for the rest). Options of the same name in another case
// are the same to ssh, and different ones to sshfs. Left out are those that this driver
// gives itself, and those that would have a mount succeed before the server has answered.
var known = byName(map[kind]string{
	flag: `reconnect sshfs_sync no_readahead sync_readdir disable_hardlink transform_symlinks contain_symlinks
		no_contain_symlinks follow_symlinks direct_io kernel_cache auto_cache noauto_cache no_rofd_flush noforget
		allow_other allow_root default_permissions ro rw noatime noexec exec nosuid nodev sync async dirsync`,
	value: `uid gid umask idmap nomap workaround cache cache_timeout cache_stat_timeout cache_link_timeout cache_dir_timeout
		dir_cache dcache_max_size dcache_timeout dcache_stat_timeout dcache_link_timeout dcache_dir_timeout
		dcache_clean_interval dcache_min_clean_interval max_conns max_read entry_timeout negative_timeout attr_timeout
		ac_attr_timeout remember sftp_server compression
		AddressFamily BindAddress BindInterface CertificateFile CheckHostIP Ciphers Compression ConnectionAttempts
		ConnectTimeout FingerprintHash GlobalKnownHostsFile GSSAPIAuthentication GSSAPIDelegateCredentials
		HostbasedAuthentication HostKeyAlgorithms HostKeyAlias IdentitiesOnly IdentityFile IPQoS
		KbdInteractiveAuthentication KexAlgorithms MACs PasswordAuthentication PreferredAuthentications
		PubkeyAcceptedKeyTypes PubkeyAuthentication RekeyLimit RevokedHostKeys ServerAliveCountMax ServerAliveInterval
		StrictHostKeyChecking TCPKeepAlive UserKnownHostsFile VerifyHostKeyDNS`,
	unsafe: `ssh_command ssh_protocol directport passive uidfile gidfile modules dev suid auto_unmount fsname subtype
		ProxyCommand ProxyJump ProxyUseFdpass LocalCommand PermitLocalCommand PKCS11Provider SmartcardDevice
		ControlMaster ControlPath ControlPersist IdentityAgent HostName KnownHostsCommand`,
})

func byName(lists map[kind]string) map[string]kind {
	m := map[string]kind{}
	for k, list := range lists {
		for name := range strings.FieldsSeq(list) {
			m[name] = k
		}
	}
	return m
}

// canonical returns the name of an option as sshfs knows it. Those of ssh are known in any
// case, unless an option of sshfs has the same letters.
func canonical(key string) (string, bool) {
	if _, ok := known[key]; ok {
		return key, true
	}
	for name := range known {
		if strings.ToLower(name) != name && strings.EqualFold(name, key) {
			return name, true
		}
	}
	return "", false
}

// check returns options of sshfs and ssh by their right names, or says what is wrong with
// one of them. A flag has the value ""; one that is turned off has "false".
func check(opts map[string]string, allow []string) (map[string]string, error) {
	out := map[string]string{}
	for _, key := range slices.Sorted(maps.Keys(opts)) {
		val := opts[key]
		name, ok := canonical(key)
		if !ok {
			return nil, unknown(key)
		}
		k := known[name]
		invalid := func(cause string) error {
			return errdefs.Errorf(errdefs.ErrInvalid, "option %q: %s", key, cause)
		}
		switch _, twice := out[name]; {
		case twice:
			return nil, invalid("is given twice, in different spellings")
		case strings.ContainsFunc(val, isControl):
			return nil, invalid(fmt.Sprintf("%q has a control character in it", val))
		case k == unsafe && !slices.Contains(allow, name):
			return nil, errdefs.Hint(errdefs.Errorf(errdefs.ErrInvalid, "option %q: can run commands on this host or weaken it, and the pool does not allow it", key),
				fmt.Sprintf("whoever may change the configuration can allow it to all volumes of the pool: allow = [%q]", name))
		case k == value && val == "":
			return nil, invalid("has no value")
		case k == flag:
			switch strings.ToLower(val) {
			case "", "true", "yes", "1":
				val = ""
			case "false", "no", "0":
				val = "false"
			default:
				return nil, invalid(fmt.Sprintf("%q is not true or false", val))
			}
		case name == "StrictHostKeyChecking":
			if val = strings.ToLower(val); !slices.Contains([]string{"yes", "accept-new", "no"}, val) {
				return nil, invalid(fmt.Sprintf("%q is not one of yes, accept-new, no", opts[key]))
			}
		}
		out[name] = val
	}
	return out, nil
}

// unknown says that an option is none, which one was probably meant, and what there is.
func unknown(key string) error {
	names := slices.Collect(maps.Keys(known))
	for _, k := range catalog.Describe[options]() {
		names = append(names, k.Name)
	}
	lower := make([]string, len(names)) // what Nearest compares with
	for i, name := range names {
		lower[i] = strings.ToLower(name)
	}
	slices.Sort(lower)
	near := catalog.Nearest(key, lower)
	if near != "" {
		i := slices.IndexFunc(names, func(n string) bool { return strings.EqualFold(n, near) })
		near = fmt.Sprintf(", did you mean %q?", names[i])
	}
	var own []string
	for _, k := range catalog.Describe[options]() {
		own = append(own, k.Name)
	}
	slices.Sort(own)
	if len(key) > 80 {
		key = key[:80] + "…"
	}
	return errdefs.Errorf(errdefs.ErrInvalid, "unknown option %q%s (there are: %s, and options of sshfs and ssh such as allow_other, uid and ServerAliveInterval)",
		key, near, strings.Join(own, ", "))
}

// split makes options of the list that a pool has.
func split(list []string) (map[string]string, error) {
	out := map[string]string{}
	for _, item := range list {
		key, val, _ := strings.Cut(item, "=")
		if _, twice := out[key]; twice {
			return nil, errdefs.Errorf(errdefs.ErrInvalid, "key \"options\": %q is given twice", key)
		}
		out[key] = val
	}
	return out, nil
}
