// Package conn talks to a CSI driver that runs: over unix sockets, to one process or to two.
//
// Every RPC goes through one place, which lets it begin only when the driver behind the socket is the one that
// was meant, bounds it, counts it, corrects its code where the driver is known to give a wrong one, and makes of
// its error a sentence with a class and a hint. What is secret in a request is in no log and no error, also
// where the driver repeats it.
//
// An error of an RPC is an [Error]; [OutcomeOf] says what it means for whoever has to leave the world in order.
package conn
