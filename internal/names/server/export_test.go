package server

import "net/netip"

// Respond answers one packet.
func Respond(s *Server, packet []byte, asker netip.Addr) []byte {
	out, ask := s.respond(new(scratch), packet, asker)
	if ask != nil {
		out = ask()
	}
	return out
}
