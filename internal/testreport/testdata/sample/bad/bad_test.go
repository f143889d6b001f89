package bad

import "testing"

func TestPass(t *testing.T) {}

func TestFail(t *testing.T) { t.Error("it is so") }

func TestParts(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Run("bad", func(t *testing.T) { t.Error("one part is bad") })
}

func TestItself(t *testing.T) {
	t.Run("good", func(t *testing.T) {})
	t.Error("the parts are good, the whole is not")
}
