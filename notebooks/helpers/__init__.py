"""What the notebook imports: which file serves which step.

file            steps            what it does
--------------- ---------------- ------------
photos.py       0, 35            finds the photos or gets new ones, checks each, loads a photo
archives.py     0                fetches and unpacks archives
drawings.py     0                draws cats and dogs where there is no network
versions.py     1                starts TensorFlow, prints versions or that a restart is needed
charts.py       7 to 38          shows charts and photos, each with a text alternative
generator.py    20 to 23, 29, 39 PhotoGenerator: batches of photos, changed at random
speed.py        24, 39           faster: the same network, computed faster
training.py     24, 39           ResumeTraining: saves every epoch, goes on, averages weights
fingerprint.py  24, 39           a short name for all that decides what a training leads to
heatmap.py      37               where a network looks
scores.py       38 to 40         the reliability diagram, and which of two networks is better
export.py       41               writes the file for phones, and asks it about photos
"""
