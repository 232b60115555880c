-- What a commit operator hears: sections; to them the beats of its lanes are added.
SELECT stream_name, section FROM watermarked_${lane};
