package mount

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/remora-plugins/remora/internal/catalog"
	"github.com/remora-plugins/remora/sdk/errdefs"
)

// fsType is one value of the option "type".
type fsType struct {
	name, family string // the name is that of the option
	form         string // what a device looks like
	device       string // if none is given
	parse        parser
	join         func(device, name string) string // nil if volumes have no directories in one
	// helper is the program that mount(8) starts, or that is started, and pkg Debian's
	// package that has it.
	helper, pkg string
	fsTypes     []string // in the kernel's table of mounts
	options     map[string]kind
	defaults    map[string]string
	users       []string // other words for the user, among the options
	credentials bool
	commas      bool // options are not joined by commas, or written so that it does not matter
	block       bool
	verify      func(facts) error
	build       func(job) (plan, error)
}

func typeOf(name string) (fsType, error) {
	if t, ok := types[name]; ok {
		return t, nil
	}
	names := typeNames()
	near := catalog.Nearest(name, names)
	if near != "" {
		near = fmt.Sprintf(", did you mean %q?", near)
	}
	if len(name) > 80 {
		name = name[:80] + "…"
	}
	return fsType{}, errdefs.Errorf(errdefs.ErrInvalid, "%q is no type%s (there are: %s)", name, near, strings.Join(names, ", "))
}

func typeNames() []string { return slices.Sorted(maps.Keys(types)) }

// The options of each type, from nfs(5), mount.cifs(8), mount.glusterfs(8), mount.ceph(8),
// ceph-fuse(8), mount.davfs(8) with davfs2.conf(5), s3fs(1), tmpfs(5), ext4(5) and xfs(5).
// Left out are those that this driver gives itself, those that are no longer used, and those
// by which a mount succeeds before the server has answered.
var (
	nfsOptions = byName(map[kind]string{
		flag: `soft hard softerr softreval nosoftreval intr nointr cto nocto ac noac acl noacl sharecache nosharecache resvport
			noresvport lock nolock rdirplus nordirplus fsc nofsc tcp udp rdma posix noposix`,
		value: `vers nfsvers minorversion addr timeo retrans retry rsize wsize acregmin acregmax acdirmin acdirmax actimeo port
			proto mountport mountproto mountvers mounthost namlen sec xprtsec lookupcache local_lock nconnect max_connect clientaddr`,
	})
	cifsOptions = byName(map[kind]string{
		flag: `soft hard guest nounix serverino noserverino forceuid noforceuid forcegid noforcegid mapchars nomapchars mapposix
			nomapposix sfu brl nobrl forcemandatorylock perm noperm dynperm nodynperm seal sign handlecache nohandlecache strictsync
			nostrictsync acl noacl posix noposix posixpaths noposixpaths nocase ignorecase cifsacl idsfromsid modefromsid mfsymlinks
			multichannel persistenthandles nopersistenthandles resilienthandles noresilienthandles fsc noautotune nosharesock
			nolease nodfs user_xattr nouser_xattr domainauto`,
		value: `domain dom workgroup vers uid gid file_mode dir_mode port ip sec iocharset cache rsize wsize bsize actimeo acregmax
			acdirmax closetimeo echo_interval max_credits max_channels compress netbiosname servern prefixpath snapshot retrans
			cruid backupuid backupgid handletimeout`,
		file:   `credentials cred`,
		unsafe: `multiuser`,
	})
	glusterOptions = byName(map[kind]string{
		flag: `acl worm selinux enable-ino32 aux-gfid-mount thin-client resolve-gids mem-accounting`,
		value: `log-level backup-volfile-servers backupvolfile-server transport direct-io-mode attribute-timeout entry-timeout
			negative-timeout use-readdirp fetch-attempts background-qlen congestion-threshold lru-limit invalidate-limit
			reader-thread-count volume-name server-port gid-timeout`,
		unsafe: `log-file xlator-option process-name dump-fuse fuse-mountopts`,
	})
	cephOptions = byName(map[kind]string{
		flag: `dcache nodcache noasyncreaddir rbytes norbytes nocrc dirstat nodirstat ino32 noino32 acl noacl quotadf noquotadf
			copyfrom nocopyfrom wsync nowsync`,
		value: `fs mds_namespace mon_addr ms_mode fsid rsize wsize rasize mount_timeout recover_session caps_max
			caps_wanted_delay_min caps_wanted_delay_max readdir_max_entries readdir_max_bytes snapdirname`,
		file: `conf`,
	})
	cephFuseOptions = byName(map[kind]string{
		value: `client_fs client_mds_namespace client_mount_timeout client_quota_df client_cache_size client_oc_size
			client_acl_type fuse_default_permissions`,
		file: `conf`,
	})
	davOptions = byName(map[kind]string{
		value: `uid gid file_mode dir_mode`,
		file:  `trust_ca_cert trust_server_cert`,
	})
	// davConf are options that stand in the file of davfs2.
	davConf = byName(map[kind]string{
		value: `use_locks lock_timeout lock_refresh use_expect100 if_match_bug drop_weak_etags n_cookies precheck
			ignore_dav_header use_compression min_propset follow_redirect connect_timeout read_timeout retry max_retry
			max_upload_attempts cache_size table_size dir_refresh file_refresh delay_upload gui_optimize buf_size`,
	})
	s3fsOptions = byName(map[kind]string{
		flag: `allow_other use_path_request_style nomultipart nocopyapi norenameapi enable_noobj_cache disable_noobj_cache sigv2
			sigv4 listobjectsv2 noxmlns compat_dir complement_stat notsup_compat_dir enable_content_md5 no_check_certificate
			requester_pays noua no_time_stamp_msg nonempty streamupload`,
		value: `url endpoint umask mp_umask uid gid default_acl retries connect_timeout readwrite_timeout public_bucket
			storage_class use_sse use_rrs parallel_count multipart_size multipart_copy_size max_dirty_data singlepart_copy_limit
			max_stat_cache_size stat_cache_expire stat_cache_interval_expire list_object_max_keys max_thread_count
			ensure_diskfree multireq_max instance_name ssl_verify_hostname cipher_suites dbglevel signature_version`,
		file:   `ahbe_conf mime`,
		unsafe: `use_cache del_cache tmpdir check_cache_dir_exist logfile curldbg iam_role ecs ibm_iam_auth imdsv1only profile credlib credlib_opts servicepath set_check_cache_sigusr1`,
	})
	tmpfsOptions = byName(map[kind]string{
		flag:  `noswap inode32 inode64`,
		value: `size mode uid gid nr_inodes nr_blocks huge mpol`,
	})
	ext4Options = byName(map[kind]string{
		flag: `discard nodiscard acl noacl user_xattr nouser_xattr barrier nobarrier delalloc nodelalloc lazytime nolazytime
			auto_da_alloc noauto_da_alloc dioread_nolock dioread_lock usrquota grpquota prjquota noload journal_checksum`,
		value: `data commit errors stripe resuid resgid journal_ioprio init_itable inode_readahead_blks max_batch_time min_batch_time`,
	})
	xfsOptions = byName(map[kind]string{
		flag: `discard nodiscard largeio nolargeio inode32 inode64 swalloc nouuid norecovery wsync lazytime nolazytime uquota
			gquota pquota prjquota noquota`,
		value: `allocsize logbsize logbufs sunit swidth`,
	})
)

var quiet = map[string]string{"nosuid": "", "nodev": ""}

// types are all there are. Soft mounts are what makes a server that is gone an error rather
// than a process that nobody can kill.
var types = allTypes()

func allTypes() map[string]fsType {
	types := map[string]fsType{}
	nfs := fsType{
		family: "nfs", form: "server:/path, or :/path with o=addr=server", parse: parseHostPath("2049", "server:/path", true), join: below,
		helper: "mount.nfs", pkg: "nfs-common", fsTypes: []string{"nfs", "nfs4"}, options: nfsOptions,
		defaults: merge(quiet, map[string]string{"soft": "", "timeo": "100", "retrans": "2", "retry": "0"}), build: byMount,
	}
	cifs := fsType{
		family: "cifs", form: "//server/share", parse: parseShare, join: below, helper: "mount.cifs", pkg: "cifs-utils",
		fsTypes: []string{"cifs", "smb3"}, options: cifsOptions, defaults: merge(quiet, map[string]string{"soft": "", "echo_interval": "10"}),
		users: []string{"username", "user"}, credentials: true, verify: verifyCifs, build: buildCifs,
	}
	disk := fsType{block: true, form: "the absolute path of a block device", parse: parseBlock, helper: "mount", pkg: "mount", defaults: quiet, build: byMount}
	add := func(name string, t fsType) {
		t.name = name
		if t.family == "" {
			t.family = name
		}
		types[name] = t
	}
	add("nfs", nfs)
	add("nfs4", nfs)
	add("cifs", cifs)
	add("smb3", cifs)
	add("glusterfs", fsType{
		form: "server:/volume", parse: parseHostPath("24007", "server:/volume", false), join: below, helper: "mount.glusterfs",
		pkg: "glusterfs-client", fsTypes: []string{"fuse.glusterfs"}, options: glusterOptions, defaults: quiet, build: byMount,
	})
	add("ceph", fsType{
		form: "monitor,monitor:/path", parse: parseCeph, join: below, helper: "mount.ceph", pkg: "ceph-common", fsTypes: []string{"ceph"},
		options: cephOptions, defaults: merge(quiet, map[string]string{"mount_timeout": "20", "recover_session": "clean"}), users: []string{"name"},
		credentials: true, build: buildCeph,
	})
	add("ceph-fuse", fsType{
		form: "monitor,monitor:/path", parse: parseCeph, join: below, helper: "ceph-fuse", pkg: "ceph-fuse", fsTypes: []string{"fuse.ceph-fuse"},
		options: cephFuseOptions, defaults: map[string]string{"client_mount_timeout": "20"}, users: []string{"name"},
		credentials: true, verify: verifyCephFuse, build: buildCephFuse,
	})
	dav := maps.Clone(davOptions)
	maps.Copy(dav, davConf)
	add("davfs", fsType{
		form: "https://server/path", parse: parseURL, join: below, helper: "mount.davfs", pkg: "davfs2", fsTypes: []string{"fuse"},
		options: dav, users: []string{"username", "user"}, credentials: true, build: buildDavfs,
		defaults: merge(quiet, map[string]string{
			"delay_upload": "0", "use_locks": "0", "buf_size": "64", "connect_timeout": "10", "read_timeout": "30", "retry": "5", "max_retry": "30",
		}),
	})
	add("s3fs", fsType{
		form: "bucket or bucket:/path", parse: parseBucket, join: belowBucket, helper: "s3fs", pkg: "s3fs", fsTypes: []string{"fuse.s3fs"},
		options: s3fsOptions, credentials: true, verify: verifyS3fs, build: buildS3fs,
		defaults: merge(quiet, map[string]string{"allow_other": "", "connect_timeout": "10", "readwrite_timeout": "20", "retries": "2"}),
	})
	add("rclone", fsType{
		form: "remote:path with a file of rclone's, or :backend:path", parse: parseRemote, join: belowRemote, helper: "rclone", pkg: "rclone",
		fsTypes: []string{rcloneType}, options: rcloneOptions(), credentials: true, commas: true, verify: verifyRclone, build: buildRclone,
		defaults: map[string]string{
			"allow-other": "", "vfs-cache-mode": "writes", "vfs-write-back": "0s", "dir-cache-time": "10s",
			"contimeout": "5s", "timeout": "20s", "low-level-retries": "2",
		},
	})
	add("tmpfs", fsType{
		form: "tmpfs", device: "tmpfs", parse: parseAny, helper: "mount", pkg: "mount", fsTypes: []string{"tmpfs"}, options: tmpfsOptions,
		defaults: quiet, build: byMount,
	})
	for name, opts := range map[string]map[string]kind{"ext4": ext4Options, "xfs": xfsOptions} {
		t := disk
		t.fsTypes, t.options = []string{name}, opts
		add(name, t)
	}
	return types
}
