// Package e2e runs the binary against real engines: dockerd and podman, on hosts that
// package lab makes on this machine. Each test is a story a user could tell.
package e2e
