package wordtable

import (
	"path/filepath"
	"testing"
)

// TestImageTokens: an image costs what the model's projector makes of it, where that is bounded
// whatever its shape; what is unknown, or no sizes at all, is 0: the context bounds it then.
func TestImageTokens(t *testing.T) {
	clip := func(more string) string {
		return `{"projector_info":{"clip.vision.image_size":448,"clip.vision.patch_size":14` + more + `}}`
	}
	for answer, want := range map[string]int{
		`{}`: 0,
		`{"model_info":{"gemma3.vision.image_size":896,"gemma3.vision.patch_size":14}}`: 256 + imageMarks,
		clip(`,"clip.projector_type":"gemma3"`):                                         64 + imageMarks,
		clip(`,"clip.vision.projector_type":"gemma3","clip.projector_type":"x"`):        64 + imageMarks,
		clip(`,"clip.projector_type":"gemma3","clip.vision.projector.scale_factor":3`):  114 + imageMarks,
		clip(`,"clip.projector_type":"gemma3","clip.has_audio_encoder":true`):           0,
		clip(`,"clip.projector_type":"internvl","clip.vision.projector.scale_factor":2`): 13 *
			(256 + imageMarks),
		clip(`,"clip.projector_type":"internvl","clip.vision.projector.scale_factor":2,"clip.vision.preproc_max_tiles":1`): 2 *
			(256 + imageMarks),
		clip(`,"clip.projector_type":"mlp"`): 0,
		clip(`,"clip.projector_type":"mlp","clip.vision.image_grid_pinpoints":[448,896,896,900,448,448]`): 7 *
			(1024 + imageMarks),
		clip(`,"clip.projector_type":"mlp","clip.vision.image_grid_pinpoints":[448,-896,896,896]`): 0,
		clip(`,"clip.projector_type":"qwen2.5vl_merger"`):                                          0,
		clip(``): 0,
		`{"projector_info":{"clip.projector_type":"gemma3","clip.vision.image_size":99999999,"clip.vision.patch_size":1}}`: 0,
		`{"projector_info":{"clip.projector_type":"gemma3","clip.vision.image_size":448,"clip.vision.patch_size":0}}`:      0,
		`{"projector_info":{"clip.projector_type":"gemma3","clip.vision.image_size":65536,"clip.vision.patch_size":1}}`:    0,
	} {
		show, err := ReadShow([]byte(answer))
		if err != nil {
			t.Fatal(err)
		}
		equal(t, want, show.imageTokens(), answer)
	}
}

// TestImageIsKept: the price of an image is part of the file; a table without words has none.
func TestImageIsKept(t *testing.T) {
	table, err := Build(&Show{
		Vocabulary: bytePairs("hello"), Projector: Projector{Type: "gemma3", ImageSize: 896, PatchSize: 14},
	})
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "table")
	if err = table.Save(path); err != nil {
		t.Fatal(err)
	}
	again, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	equal(t, 256+imageMarks, again.Framing.Image, "of an image")
	equal(t, 0, again.WithoutWords().Framing.Image, "without words")
}
