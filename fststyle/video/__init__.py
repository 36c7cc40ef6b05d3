"""A style on videos: every frame and its time, sound, subtitles and metadata. Needs PyAV (the extra ``video``)."""

from fststyle.video.batch import stylize_videos
from fststyle.video.decode import Damage, VideoSource
from fststyle.video.formats import CODECS, CONTAINERS, VideoError
from fststyle.video.stylize import InterruptedVideo, Report, VideoOptions, stylize_video

__all__ = [
    "CODECS",
    "CONTAINERS",
    "Damage",
    "InterruptedVideo",
    "Report",
    "VideoError",
    "VideoOptions",
    "VideoSource",
    "stylize_video",
    "stylize_videos",
]
