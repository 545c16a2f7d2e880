package main

import (
	"path/filepath"
	"runtime"
	"strings"

	"github.com/decant-project/decant"
	"github.com/decant-project/decant/internal/fetch"
)

const (
	library     = "bin/libonnxruntime.so.1"
	recordings  = "examples/speech/devices/mic-board/recordings"
	speechModel = "examples/speech/models/silero-vad"
	visionModel = "examples/vision/models/mobilenetv2"
	cameraFiles = "examples/vision/devices/camera/photographs"

	platform = runtime.GOOS + "/" + runtime.GOARCH
)

var onnxruntime = fetch.NPM{
	Package:   "onnxruntime-node@1.27.0",
	Integrity: "sha512-QEzGwrvNBgv4uPVdnbHsOGG4G6T96mdlcFI8aAKPjMU8wOPpVocPXb6k3QGkaZagVTv2G9Bnnbo6Z3JdXr1fQw==",
	Size:      100893124,
}

var runtimes = map[string]fetch.File{
	"linux/amd64": {
		Name:   "package/bin/napi-v6/linux/x64/libonnxruntime.so.1",
		Path:   library,
		Digest: "sha256:d8aff4aa8abee8fb2abb2f2f2459ffc94461e781e41b9f7c072829dd0d470221",
		Size:   38023776,
	},
	"linux/arm64": {
		Name:   "package/bin/napi-v6/linux/arm64/libonnxruntime.so.1",
		Path:   library,
		Digest: "sha256:c36bc200e7e6c093b8abb0b34590fbdd8c52fd3fb5e33795b9523ffdde2fce0f",
		Size:   20001880,
	},
}

var vadWeb = fetch.NPM{
	Package:   "@ricky0123/vad-web@0.0.31",
	Integrity: "sha512-ePVq8TvB21sdHSxVMZOEIf9JVa7MAYpaIaNXeGgsPOiMCN8xbPCdF2LS5aYj7VRR3ZxzutedgV9ZplV65IA1Fg==",
	Size:      5471324,
}

var silero = fetch.File{
	Name:   "package/dist/silero_vad_v5.onnx",
	Path:   speechModel + "/silero_vad_v5.onnx",
	Digest: "sha256:2623a2953f6ff3d2c1e61740c6cdb7168133479b267dfef114a4a3cc5bdd788f",
	Size:   2327524,
}

// spoken are recordings of two words each, and of noise. Releases of Debian
// have different packages with the same recordings.
var spoken = pins("usr/share/sounds/alsa", recordings, `
0d61518bcd3f13b0c709a5298e939caf698b80d31d71d50475365ee0e5536cc9  Front_Center.wav
9f97e8458785da2f0aa0ec60bf9cc81520cbf80a4683e83eca9cb5f2958e9fef  Front_Left.wav
1fdea4d7003f1f7d3e48d3521aaab0a112c4ac570b02ddf1813abacac3070f6f  Front_Right.wav
0d897df3862192ea078efc1dd8fdc4f51fae9e93d3ed4c15e049829b0386729e  Noise.wav
9343207e3298813fdc4d26b7948e15a38533c37a9f232c3eff809b565398b330  Rear_Center.wav
1679e0557701864d55b742a0abd3fe5f50d95b1bfcb55ffad4b597dcc7e3c7b8  Rear_Left.wav
12828d125f692faa75c7445d52125dcc2c36f82c4f7a3ef49b8ae6afd74ada9d  Rear_Right.wav
03dc7c641d7825417d2a261831715e945e95d87343fb037db910e7ce4f87a2a1  Side_Left.wav
ecdd0329945f355960796a56f8126d5080ed93fdd2437c7eaddbbbd56137d7e9  Side_Right.wav
`)

var mobilenet = pins("models", visionModel, `
4eb3da435cf544e4a6f390f62c84cb9c9bb68cf8b14e97f8a063452382e5efd2  imagenet-labels.txt
83530ad811bc31d2b60a5599a21265a5057608c9b044b4ee758cc22f2309f54f  mobilenetv2-int8.onnx
`)

var photographs = pins("images", cameraFiles, `
3fd22d6ed352b8e721d9982e38ed655f8429e168bb53ad205c6f3cdfa848e994  bird.bmp
cfb1dbdf64b30de79104a47555ff8e9f12737a12c2128ecd0e7f38531a8c13ce  cat_720p.jpg
c43444bf3b1b1e3080551ca194bd231da4b67f20fc91454502915a6b806b614f  grace_hopper.bmp
ed6952e022eb71c0d0b1ff068dcee3abed056dfa1852f041c35f138c4ff15b2e  hot_dog.jpg
ea9a0e3943bbd0acaeb472a6e66e777d13cf76646f9e42e84cafa931cc8a5bf7  owl.jpg
a8fba9e7e29439fa414c13129aad661f2289ff891231920a7c33641b076f1833  parrot.jpg
896b5e31cee42ebe32ee91251fc42041ca03c767fe02bd7ebc0e37d45f4a45b2  sunflower.bmp
`)

// pins reads lines of a SHA-256 and a name.
func pins(source, folder, lines string) []fetch.File {
	var files []fetch.File
	for line := range strings.Lines(strings.TrimSpace(lines)) {
		sum, name, _ := strings.Cut(strings.TrimSpace(line), "  ")
		files = append(files, fetch.File{
			Name:   source + "/" + name,
			Path:   filepath.Join(folder, name),
			Digest: decant.Digest("sha256:" + sum),
			Size:   16 * decant.MiB,
		})
	}
	return files
}

// under returns a folder of data, which is a folder itself or an address.
func under(data, folder string) fetch.Source {
	if strings.HasPrefix(data, "http://") || strings.HasPrefix(data, "https://") {
		return fetch.Web(strings.TrimSuffix(data, "/") + "/" + folder)
	}
	return fetch.Folder(filepath.Join(data, folder))
}
