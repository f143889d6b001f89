package engineapi

import (
	"context"
	"os"
	"runtime"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// version answers GET /version.
func (s *Server) version() map[string]any {
	kernel, built := kernelVersion(), s.started.UTC().Format(time.RFC3339)
	return map[string]any{
		"Platform": map[string]string{"Name": "Remora"},
		"Components": []map[string]any{{
			"Name": "Engine", "Version": s.Remora,
			"Details": map[string]string{
				"ApiVersion": Version, "MinAPIVersion": minVersion, "Os": runtime.GOOS, "Arch": runtime.GOARCH,
				"GoVersion": runtime.Version(), "KernelVersion": kernel, "GitCommit": s.Remora, "BuildTime": built, "Experimental": "false",
			},
		}},
		"Version": s.Remora, "ApiVersion": Version, "MinAPIVersion": minVersion, "GitCommit": s.Remora,
		"GoVersion": runtime.Version(), "Os": runtime.GOOS, "Arch": runtime.GOARCH, "KernelVersion": kernel, "BuildTime": built,
	}
}

// info answers GET /info: what "docker info" prints, of an engine without containers.
func (s *Server) info(context.Context) map[string]any {
	host, err := os.Hostname()
	if err != nil {
		host = "" // nobody needs it
	}
	var mem unix.Sysinfo_t
	_ = unix.Sysinfo(&mem) // then it has none
	return map[string]any{
		"ID": host, "Name": host, "ServerVersion": s.Remora, "Driver": "none", "DriverStatus": [][2]string{},
		"Containers": 0, "ContainersRunning": 0, "ContainersPaused": 0, "ContainersStopped": 0, "Images": 0,
		"Plugins": map[string]any{"Volume": s.Drivers(), "Network": []string{}, "Authorization": nil, "Log": []string{}},
		"OSType":  runtime.GOOS, "OperatingSystem": osName(), "Architecture": machine(), "KernelVersion": kernelVersion(),
		"NCPU": runtime.NumCPU(), "MemTotal": int64(mem.Totalram) * int64(mem.Unit), "DockerRootDir": s.Root, //nolint:gosec // no machine has 8 EiB
		"SystemTime": time.Now().Format(time.RFC3339Nano), "NEventsListener": 0, "LoggingDriver": "none", "CgroupDriver": "cgroupfs",
		"IndexServerAddress": "https://index.docker.io/v1/", "DefaultRuntime": "runc", "Runtimes": map[string]any{"runc": map[string]string{"path": "runc"}},
		"Swarm":            map[string]any{"NodeID": "", "NodeAddr": "", "LocalNodeState": "inactive", "ControlAvailable": false, "Error": "", "RemoteManagers": nil},
		"ContainerdCommit": map[string]string{"ID": ""}, "RuncCommit": map[string]string{"ID": ""}, "InitCommit": map[string]string{"ID": ""},
		"SecurityOptions": []string{}, "Warnings": nil, "Labels": []string{}, "ExperimentalBuild": false, "LiveRestoreEnabled": true,
		"MemoryLimit": true, "SwapLimit": true, "CpuCfsPeriod": true, "CpuCfsQuota": true, "CPUShares": true, "CPUSet": true,
		"PidsLimit": true, "IPv4Forwarding": true, "BridgeNfIptables": true, "BridgeNfIp6tables": true, "OomKillDisable": true,
	}
}

func kernelVersion() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return "<unknown>"
	}
	return unix.ByteSliceToString(u.Release[:])
}

func machine() string {
	var u unix.Utsname
	if unix.Uname(&u) != nil {
		return runtime.GOARCH
	}
	return unix.ByteSliceToString(u.Machine[:])
}

// osName is the name of the system as os-release(5) has it.
func osName() string {
	b, err := os.ReadFile("/etc/os-release")
	if err != nil {
		return runtime.GOOS
	}
	for line := range strings.Lines(string(b)) {
		if v, ok := strings.CutPrefix(strings.TrimSpace(line), "PRETTY_NAME="); ok {
			if name, err := strconv.Unquote(v); err == nil {
				return name
			}
			return v
		}
	}
	return runtime.GOOS
}
