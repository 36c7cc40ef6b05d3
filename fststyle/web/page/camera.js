// The camera: a dialog with what it sees, from which a picture is taken.

/** Let the user take a picture; null where they leave it. */
export async function taken() {
  const [dialog, video] = ["camera-dialog", "video"].map((id) => document.getElementById(id));
  if (!navigator.mediaDevices?.getUserMedia) throw new Error("This browser gives no camera to this page.");
  let stream;
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1920 } } });
  } catch (error) {
    const denied = error.name === "NotAllowedError";
    throw new Error(denied ? "The camera was not allowed; allow it in the browser's settings." : "No camera was found.");
  }
  try {
    video.srcObject = stream;
    const chosen = new Promise((done) => {
      document.getElementById("take").onclick = async () => video.videoWidth && done(await createImageBitmap(video));
      document.getElementById("close-camera").onclick = () => done(null);
      dialog.oncancel = () => done(null);
    });
    dialog.showModal(); // its buttons work before the camera shows anything
    video.play().catch(() => {}); // closing it ends that too
    return await chosen;
  } finally {
    for (const track of stream.getTracks()) track.stop();
    video.srcObject = null;
    dialog.close();
  }
}
