// Package address knows which host owns which addresses, and gives out those that this one owns.
//
// A space is the subnets of a network, or the cluster's range, from which subnets are cut. All of it belongs
// to the host that made it, until that gives a part to another by a grant, which it alone may write ([record.Grant]). So
// who owns what follows from the grants alone, is the same on every host whatever the order in which they come, and
// needs nobody's agreement: hosts that are cut off from each other go on giving out what they own.
//
// A host that needs addresses asks one that has some free ([Asker], [Allocator.Answer]), and is given half of that at
// first, so that it can give to others in turn. A host that was removed can give nothing away any more, and those
// alive may not all have heard of what it gave. What it owned is taken over by who removed it, but not before every host
// that is alive has said that it knows of the same grants ([record.Settled]); one that hears of another grant after that
// does not use what it got by it until the takeover is done. The takeover waits for hosts that are down until they are up or
// removed, too. What nobody can know is a host that only the removed one had let in: who removes a
// host should see all the others.
//
// What is given out is on disk before anybody hears of it.
package address
