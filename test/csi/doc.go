// Package csi proves the driver csi on CSI drivers that others wrote, and on ours where there is no other: a real
// engine creates, mounts, fills, copies, grows and removes volumes of theirs. What is said between Remora and the
// driver is counted and checked by package tap.
//
//	REMORA_CSI_ENDPOINT=/run/csi.sock go test -v ./test/csi -run TestDriver
//
// README.md has what else can be set.
package csi
