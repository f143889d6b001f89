package archtest

// rule is one habit of the house that a program can check.
type rule struct {
	// name is also that of the fixture in testdata that breaks the rule.
	name string
	// reason is one sentence for the person whose change was refused.
	reason string
	check  func(*tree) []finding
}

// rules is every rule there is.
func rules() []rule {
	return []rule{
		{
			"sdk-imports",
			"a plugin author gets the SDK without our dependencies, so it stands on the standard library alone",
			sdkImports,
		},
		{
			"driver-imports",
			"a driver knows its storage and nothing of the daemon, so that each can be read, tested and thrown away alone",
			driverImports,
		},
		{
			"drivers-in-one-list",
			"only the list in drivers/all knows the drivers, so that adding one touches one folder and one line",
			driversInOneList,
		},
		{
			"layers",
			"what puts everything together is imported by nothing below it, and a leaf by anything",
			layers,
		},
		{
			"forbidden-imports",
			"there is one way here to wrap errors, to log, to test and to read files",
			forbiddenImports,
		},
		{
			"no-global-logger",
			"a logger is an argument, so that a test, a pool and an embedded SDK each have their own",
			noGlobalLogger,
		},
		{
			"no-init",
			"init runs in an order nobody reads and cannot be left out in a test; call a function from main",
			noInit,
		},
		{
			"package-comment",
			"whoever opens a folder is told first what it is for",
			packageComment,
		},
		{
			"package-name",
			"a package is named for what it provides; these names take in everything and are left by nothing",
			packageName,
		},
		{
			"file-length",
			"a file is read at one sitting",
			fileLength,
		},
		{
			"main-length",
			"main has no tests, so nothing in it may need one",
			mainLength,
		},
		{
			"example-length",
			"the examples show that a whole plugin fits on a page or two",
			exampleLength,
		},
		{
			"unfinished",
			"what is left to do is an issue, or is done",
			unfinished,
		},
		{
			"no-test-tags",
			"a test behind a build tag is compiled by nobody; use testenv.Require, which is seen to skip",
			noTestTags,
		},
		{
			"sdk-docs",
			"the doc comments are all that a plugin author gets to read",
			sdkDocs,
		},
		{
			"interface-size",
			"what every driver must have is small; what some can do beyond it is an interface of one method",
			interfaceSize,
		},
		{
			"driver-readme",
			"the page of every driver has the same parts in the same order",
			driverReadme,
		},
		{
			"links",
			"a link to a file that is not there is worse than none",
			links,
		},
		{
			"changelog",
			"the release notes are put together from these files by their first lines",
			changelog,
		},
		{
			"adr",
			"a decision can be undone only by someone who knows why it was made and what it cost",
			adr,
		},
	}
}
